package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// daemonProcess serves a mount.
type daemonProcess struct {
	point string
	cmd   *exec.Cmd
}

func (d daemonProcess) dir() string { return d.point }

// peak is the most resident memory that it had, in KiB, while it runs. Not that of
// rusage, which counts what the parent had when it was forked.
func (d daemonProcess) peak() int64 { return d.memory("VmHWM") }

// resident is the resident memory that it has now, in KiB.
func (d daemonProcess) resident() int64 { return d.memory("VmRSS") }

func (d daemonProcess) memory(of string) (kib int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, of+": %d kB", &kib); err == nil {
			return kib
		}
	}
	return 0
}

// cpu is the time of processors that it took, in seconds, when it has ended.
func (d daemonProcess) cpu() float64 {
	return (d.cmd.ProcessState.UserTime() + d.cmd.ProcessState.SystemTime()).Seconds()
}
