package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"strconv"
	"strings"
	"sync"
)

// logHandler writes records the way all messages are written: to stderr, or to
// syslog, which knows the level by itself.
type logHandler struct {
	out   *logOutput
	attrs string // of the logger, formatted
	group string // with its dot
}

// logOutput is where the records of a logger go; it can change.
type logOutput struct {
	level slog.Level // the least that is written

	mu     sync.Mutex
	stderr io.Writer // nil when there is none any more
	syslog *syslog.Writer
}

// newLog makes a logger that writes to stderr first.
func newLog(stderr io.Writer, level slog.Level) (*slog.Logger, *logOutput) {
	out := &logOutput{stderr: stderr, level: level}
	return slog.New(&logHandler{out: out}), out
}

// toSyslog sends what follows to syslog, which journald reads too. Where there
// is none, nobody reads it.
func (o *logOutput) toSyslog() {
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, "kmsfs")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stderr = nil
	if err == nil {
		o.syslog = w
	}
}

func (o *logOutput) write(level slog.Level, text string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.stderr != nil:
		if level >= slog.LevelError {
			text = "error: " + text
		} else if level >= slog.LevelWarn {
			text = "warning: " + text
		}
		printLines(o.stderr, prefix, text)
		return nil
	case o.syslog == nil:
		return nil
	case level >= slog.LevelError:
		return o.syslog.Err(text)
	case level >= slog.LevelWarn:
		return o.syslog.Warning(text)
	case level >= slog.LevelInfo:
		return o.syslog.Info(text)
	}
	return o.syslog.Debug(text)
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.out.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.group, a)
		return true
	})
	return h.out.write(r.Level, b.String())
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		appendAttr(&b, h.group, a)
	}
	return &logHandler{out: h.out, attrs: b.String(), group: h.group}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &logHandler{out: h.out, attrs: h.attrs, group: h.group + name + "."}
}

func appendAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range v.Group() {
			appendAttr(b, group, member)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	text := v.String()
	// A file's name may hold anything, a terminal's escape sequences too.
	if quoted := strconv.Quote(text); text == "" || strings.ContainsAny(text, " =") || len(quoted) != len(text)+2 {
		text = quoted
	}
	fmt.Fprintf(b, " %s%s=%s", group, a.Key, text)
}
