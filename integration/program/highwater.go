package program

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

var highWater = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// Run runs a command to its end and returns the most memory that its process had resident, in KiB. The kernel's own
// figure for a process that has ended (ru_maxrss) would not do: it is no less than what the process that started it had.
func Run(c *exec.Cmd) (peak int64, err error) {
	if err := c.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		// It never falls, so what is read last is the most until then.
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid)); err == nil {
			if m := highWater.FindSubmatch(b); m != nil {
				peak, _ = strconv.ParseInt(string(m[1]), 10, 64)
			}
		}
		select {
		case err := <-ended:
			return peak, err
		case <-time.After(2 * time.Millisecond):
		}
	}
}
