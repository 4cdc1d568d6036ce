package local_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsfs/kmsprovider/local"
)

// The test binary runs itself to have other processes.
const childEnv = "KMSFS_TEST_CREATE_KEYS" // COUNT:PATH

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		if err := createKeysAndPrint(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// createKeysAndPrint creates keys and prints the ARN of each that exists.
func createKeysAndPrint(job string) error {
	count, path, _ := strings.Cut(job, ":")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	k, err := local.Open(context.Background(), options(path))
	if err != nil {
		return err
	}
	defer k.Close()
	for i := range n {
		m, err := k.CreateKey(context.Background(), local.CreateKeyInput{Description: strings.Repeat("x", i%4000)})
		if err != nil {
			return err
		}
		if _, err := fmt.Println(m.ARN); err != nil {
			return err
		}
	}
	return nil
}

// child starts a process that creates n keys in the keystore at path.
func child(t *testing.T, n int, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%s", childEnv, n, path))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewScanner(out)
}

// arns returns the set of a keystore's keys, opened anew.
func arns(t *testing.T, path string) map[string]bool {
	t.Helper()
	keys, err := local.AllKeys(t.Context(), open(t, path))
	if err != nil {
		t.Fatal(err)
	}
	set := make(map[string]bool)
	for _, m := range keys {
		set[m.ARN] = true
	}
	return set
}

func TestSeveralProcessesCreatingKeysAtOnceLoseNone(t *testing.T) {
	const processes, each = 5, 20
	k := create(t)
	var mu sync.Mutex
	var printed []string
	var group sync.WaitGroup
	for range processes {
		c, lines := child(t, each, k.Path())
		group.Go(func() {
			for lines.Scan() {
				mu.Lock()
				printed = append(printed, lines.Text())
				mu.Unlock()
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	for range each {
		arn := createKey(t, k, "")
		mu.Lock()
		printed = append(printed, arn)
		mu.Unlock()
	}
	group.Wait()
	there := arns(t, k.Path())
	if want := (processes + 1) * each; len(printed) != want || len(there) != want {
		t.Fatalf("%d keys returned, %d in the file, want %d", len(printed), len(there), want)
	}
	for _, arn := range printed {
		if !there[arn] {
			t.Errorf("lost %s", arn)
		}
		if _, err := k.DescribeKey(t.Context(), arn); err != nil {
			t.Error(err)
		}
	}
}

func TestAfterKillTheKeystoreIsTheOldOrTheNewOne(t *testing.T) {
	k := create(t)
	returned := make(map[string]bool)
	for round := range 30 {
		c, lines := child(t, 1_000_000, k.Path())
		for i := 0; i <= round%3 && lines.Scan(); i++ {
			returned[lines.Text()] = true
		}
		time.Sleep(time.Duration(round) * 150 * time.Microsecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			// A line cut short by the kill is no answer yet.
			if len(lines.Text()) == len("arn:aws:kms:local:123456789012:key/")+36 {
				returned[lines.Text()] = true
			}
		}
		var killed *exec.ExitError
		if err := c.Wait(); !errors.As(err, &killed) {
			t.Fatalf("the child was not killed: %v", err)
		}
		there := arns(t, k.Path())
		for arn := range returned {
			if !there[arn] {
				t.Fatalf("round %d: lost %s", round, arn)
			}
		}
		// Of keys that were never returned there is at most one per kill.
		if extra := len(there) - len(returned); extra < 0 || extra > round+1 {
			t.Fatalf("round %d: %d keys that nobody was told of", round, extra)
		}
	}
	if len(returned) < 30 {
		t.Errorf("only %d keys were returned", len(returned))
	}
}

func TestATemporaryLeftByACrashIsInNobodysWay(t *testing.T) {
	k := create(t)
	first := createKey(t, k, "")
	whole, err := os.ReadFile(k.Path())
	if err != nil {
		t.Fatal(err)
	}
	temporary := k.Path() + ".tmp"
	if err := os.WriteFile(temporary, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if !arns(t, k.Path())[first] {
		t.Error("the key is gone")
	}
	second := createKey(t, k, "")
	if there := arns(t, k.Path()); !there[first] || !there[second] {
		t.Error("a key is gone")
	}
	if _, err := os.Stat(temporary); err == nil {
		t.Error("the temporary is still there")
	}
}

func TestAReplaceThatFailsLeavesTheOldKeystore(t *testing.T) {
	k := create(t)
	arn := createKey(t, k, "")
	before, err := os.ReadFile(k.Path())
	if err != nil {
		t.Fatal(err)
	}
	// A directory in the place of the temporary cannot be removed while it has
	// an entry: for root too.
	if err := os.MkdirAll(filepath.Join(k.Path()+".tmp", "entry"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := k.CreateKey(t.Context(), local.CreateKeyInput{}); err == nil {
		t.Fatal("created")
	}
	if after, _ := os.ReadFile(k.Path()); !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
	if keys, err := local.AllKeys(t.Context(), k); err != nil || len(keys) != 1 || keys[0].ARN != arn {
		t.Errorf("%v, %v", keys, err)
	}
}
