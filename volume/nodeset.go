package volume

import "sync"

// nodeSet is a set of nodes that it keeps alive.
type nodeSet struct {
	mu sync.Mutex
	m  map[*Node]struct{}
}

func (s *nodeSet) add(n *Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[*Node]struct{})
	}
	s.m[n] = struct{}{}
}

func (s *nodeSet) remove(n *Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, n)
}

// all returns the members.
func (s *nodeSet) all() []*Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Node, 0, len(s.m))
	for n := range s.m {
		out = append(out, n)
	}
	return out
}
