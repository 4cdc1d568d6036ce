package fs

import (
	"testing"
)

func TestOnlyListingsOfTheDirectoryHearThatAnEntryWasLookedUp(t *testing.T) {
	var l lookers
	one, other, elsewhere := new(dirHandle), new(dirHandle), new(dirHandle)
	l.add(2, one)
	l.add(2, one) // which counts once
	l.add(2, other)
	l.add(3, elsewhere)
	l.remove(2, other)
	l.remove(2, other)
	l.remove(4, one)
	l.found(4)
	if one.looking.looked.Load() {
		t.Error("a listing hears of another directory")
	}
	l.found(2)
	if !one.looking.looked.Load() || other.looking.looked.Load() || elsewhere.looking.looked.Load() {
		t.Error("those who hear of an entry that was looked up are others than those who listen")
	}
	l.remove(3, elsewhere)
	if n := l.n.Load(); n != 0 || len(l.byDir) != 0 {
		t.Errorf("%d listings are remembered that nobody reads any more, %d directories", n, len(l.byDir))
	}
}
