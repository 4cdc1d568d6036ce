package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"kmsfs/volume"
)

func TestEveryLineOfAnErrorHasThePrefix(t *testing.T) {
	var b strings.Builder
	sayError(&b, withHint(errors.Join(errors.New("one"), errors.New("two")), "try %s", "three"))
	if want := "kmsfs: one\nkmsfs: two\nhint: try three\n"; b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}

func TestTheOutermostHintCounts(t *testing.T) {
	err := fmt.Errorf("more: %w", withHint(volume.ErrNotVolume, "own hint"))
	if got := hintOf(err); got != "own hint" {
		t.Errorf("hint is %q", got)
	}
	if got := hintOf(fmt.Errorf("open: %w", &volume.InUseError{Mountpoint: "/mnt"})); !strings.Contains(got, "kmsfs unmount /mnt") {
		t.Errorf("hint is %q", got)
	}
	if got := hintOf(errors.New("anything")); got != "" {
		t.Errorf("hint is %q, want none", got)
	}
}

func TestLogRecordsReadLikeMessages(t *testing.T) {
	var b strings.Builder
	log, _ := newLog(&b, slog.LevelInfo)
	log.Debug("not shown")
	log.Info("mounted", "backing", "/enc", "n", 3)
	log.With("path", "a b").Warn("odd", "name", "\x1b[31m", "empty", "")
	log.WithGroup("g").Error("bad", "k", "v", slog.Group("h", "x", true))
	want := "kmsfs: mounted backing=/enc n=3\n" +
		"kmsfs: warning: odd path=\"a b\" name=\"\\x1b[31m\" empty=\"\"\n" +
		"kmsfs: error: bad g.k=v g.h.x=true\n"
	if b.String() != want {
		t.Errorf("logged\n%swant\n%s", b.String(), want)
	}
}

func TestNothingGoesToStderrOnceTheLogIsSyslogs(t *testing.T) {
	var b strings.Builder
	log, out := newLog(&b, slog.LevelDebug)
	out.toSyslog()
	log.Error("test of kmsfs: ignore")
	if b.Len() > 0 {
		t.Errorf("stderr got %q", b.String())
	}
}
