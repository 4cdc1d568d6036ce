package integration

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/integration/emulator"
)

// recipes are the blocks of docs/S3.md, by tool and direction.
var recipes = regexp.MustCompile("(?ms)^```sh ([a-z]+ [a-z]+)\n(.*?)^```$")

// syncer runs the recipes of one tool against a bucket of one store.
type syncer struct {
	t       testing.TB
	tool    string // "aws", "rclone"
	store   *emulator.Store
	bucket  string
	env     []string
	unset   string            // before each script
	scripts map[string]string // by direction
}

func newSyncer(t testing.TB, tool string, store *emulator.Store, url string) *syncer {
	t.Helper()
	need(t, "bash", "rclone")
	doc, err := os.ReadFile("../docs/S3.md")
	if err != nil {
		t.Fatal(err)
	}
	s := &syncer{t: t, tool: tool, store: store, bucket: store.CreateBucket(t), scripts: map[string]string{}}
	for _, found := range recipes.FindAllStringSubmatch(string(doc), -1) {
		if of, direction, _ := strings.Cut(found[1], " "); of == tool {
			s.scripts[direction] = found[2]
		}
	}
	if len(s.scripts) < 2 {
		t.Fatalf("docs/S3.md has recipes %q of %s", slices.Collect(maps.Keys(s.scripts)), tool)
	}
	for name, value := range store.Environment(url) {
		if value == "" && name != "AWS_MAX_ATTEMPTS" { // which the aws command takes for a name
			s.unset += "unset " + name + "\n"
			continue
		}
		s.env = append(s.env, name+"="+value)
	}
	s.env = append(s.env, "PATH="+filepath.Dir(emulator.Tool(t, "aws"))+":"+os.Getenv("PATH"), "S3=s3://"+s.bucket+"/copy",
		"REMOTE=pail:"+s.bucket+"/copy", "RCLONE_CONFIG=/dev/null", "RCLONE_CONFIG_PAIL_TYPE=s3", "RCLONE_CONFIG_PAIL_PROVIDER=Other",
		"RCLONE_CONFIG_PAIL_ENV_AUTH=true", "RCLONE_CONFIG_PAIL_REGION="+emulator.Region, "RCLONE_CONFIG_PAIL_ENDPOINT="+url,
		"RCLONE_S3_NO_CHECK_BUCKET=true", "AWS_MAX_ATTEMPTS=10")
	return s
}

// try runs a recipe, and returns what it said. The directory has no link in it.
func (s *syncer) try(direction, backing string, more ...string) (string, error) {
	s.t.Helper()
	sh := shell{t: s.t, Dir: "/", Env: append(append(slices.Clone(s.env), "BACKING="+backing), more...)}
	return sh.try("", "bash", "-euc", s.unset+s.scripts[direction])
}

func (s *syncer) run(direction, backing string) {
	s.t.Helper()
	if _, err := s.try(direction, backing); err != nil {
		s.t.Fatal(err)
	}
}

// keys counts the sidecars in the bucket.
func (s *syncer) keys() int {
	s.t.Helper()
	return len(s.store.Keys(s.t, s.bucket, "copy/.kmsfs/keys/"))
}

// elsewhere is the volume in another directory, as a host has it that never saw it.
func (d *daemon) elsewhere(backing string) *daemon {
	d.t.Helper()
	other := &daemon{t: d.t, bin: d.bin, Backing: backing, Dir: d.t.TempDir()}
	home := d.t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	other.env = append(slices.Clone(d.env), "XDG_STATE_HOME="+filepath.Join(home, "state"), "XDG_RUNTIME_DIR="+filepath.Join(home, "run"))
	d.t.Cleanup(other.kill)
	return other
}

// fsck checks the volume, and returns what it said and its exit code.
func (d *daemon) fsck(flags ...string) (string, int) {
	d.t.Helper()
	sh := shell{t: d.t, Dir: "/", Env: d.env}
	out, err := sh.try("", slices.Concat([]string{d.bin, "fsck"}, flags, []string{d.Backing})...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, 0
	case !errors.As(err, &exit) || !slices.Contains([]int{26, 27}, exit.ExitCode()):
		d.t.Fatal(err)
	}
	return out, exit.ExitCode()
}

// withEveryTool runs a test with each tool, against each store.
func withEveryTool(t *testing.T, test func(t *testing.T, store *emulator.Store, tool string)) {
	emulator.Stores(t, func(t *testing.T, store *emulator.Store) {
		for _, tool := range []string{"aws", "rclone"} {
			t.Run(tool, func(t *testing.T) { test(t, store, tool) })
		}
	})
}

// everyKind makes one of each in a directory.
func everyKind(t testing.TB, dir string) {
	t.Helper()
	oddTree(t, dir, true)
	if err := os.MkdirAll(filepath.Join(dir, "empty/in it"), 0o750); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(filepath.Join(dir, "suid"), 1234, 2345); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
}

func TestAVolumeComesBackFromS3ByAnyTool(t *testing.T) {
	t.Parallel()
	withEveryTool(t, func(t *testing.T, store *emulator.Store, tool string) {
		s := newSyncer(t, tool, store, store.URL)
		d := newDaemon(t)
		d.start()
		everyKind(t, d.Dir)
		want := tree(t, d.Dir)
		d.stop()

		s.run("up", d.Backing)
		copied := d.elsewhere(filepath.Join(t.TempDir(), "copy"))
		s.run("down", copied.Backing)
		copied.start()
		compareCopy(t, tool, want, tree(t, copied.Dir), copied.Dir)
		copied.stop()
		copied.fsck("--repair") // hard links became files of one ID

		// Changes go the same way, deletions too, and no sidecar goes.
		before := s.keys()
		d.start()
		change(t, d.Dir)
		want = tree(t, d.Dir)
		d.stop()
		s.run("up", d.Backing)
		s.run("down", copied.Backing)
		if now := s.keys(); now < before+2 {
			t.Errorf("the bucket had %d sidecars, and has %d", before, now)
		}
		copied.start()
		compareCopy(t, tool, want, tree(t, copied.Dir), copied.Dir)
		copied.stop()

		// The way back: what the copy has is a whole volume, of its own.
		back := d.elsewhere(filepath.Join(t.TempDir(), "back"))
		s.run("down", back.Backing)
		back.start()
		compareCopy(t, tool, want, tree(t, back.Dir), back.Dir)
		if err := os.WriteFile(filepath.Join(back.Dir, "new"), []byte("written into the copy"), 0o644); err != nil {
			t.Error(err)
		}
		back.stop()
	})
}

// change makes, renames, rewrites and removes.
func change(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("new"), []byte("new"), 0o644),
		os.MkdirAll(at("new directory/in it"), 0o755),
		os.WriteFile(at("new directory/file"), []byte("another"), 0o644),
		os.Rename(at(strings.Repeat("n", 255)), at("short")),
		os.RemoveAll(at("empty")),
		os.Remove(at("\xff\xfe not UTF-8\n")),
		os.WriteFile(at("sparse"), []byte("no longer"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// compareCopy compares a volume with its copy as docs/S3.md says.
func compareCopy(t *testing.T, tool string, want, got map[string]facts, dir string) {
	t.Helper()
	kept := map[string]bool{}
	heading := map[string]string{"aws": "aws s3 sync", "rclone": "rclone sync --links"}[tool]
	for _, row := range readTable(t, "../docs/S3.md", "of the volume", heading) {
		kept[row[0]] = strings.HasPrefix(row[1], "kept")
	}
	if len(kept) < 10 {
		t.Fatalf("docs/S3.md has %v", kept)
	}
	// lost tells whether any of the entries that have something lost it.
	seen := map[string]int{}
	check := func(what string, same bool, name string) {
		t.Helper()
		if same {
			seen[what] |= 1
			return
		}
		seen[what] |= 2
		if kept[what] {
			t.Errorf("%s of %q: not kept", what, name)
		}
	}
	for name, w := range want {
		g, ok := got[name]
		switch w.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			check("names, of any bytes", ok, name)
			check("contents", w.Content == g.Content, name)
			check("times of files", w.Mtime == g.Mtime, name)
			check("modes", w.Mode == g.Mode, name)
			check("owners", w.UID == g.UID && w.GID == g.GID, name)
			check("hard links", w.Nlink == g.Nlink, name)
		case unix.S_IFDIR:
			check("directories, empty ones too", ok && g.Mode&unix.S_IFMT == unix.S_IFDIR, name)
			check("times of directories", w.Mtime == g.Mtime, name)
			check("modes", w.Mode == g.Mode, name)
		case unix.S_IFLNK:
			check("symlinks", ok && w.Content == g.Content, name)
		default:
			check("FIFOs, sockets, devices", ok && g.Mode == w.Mode, name)
		}
	}
	for name, g := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is there and should not be: %o, %d bytes", name, g.Mode, g.Size)
		}
	}
	n, _ := unix.Getxattr(filepath.Join(dir, "suid"), "user.test", make([]byte, 100))
	check("extended attributes, ACLs, capabilities", n == len("a value"), "suid")
	for what, was := range seen {
		if !kept[what] && was == 1 {
			t.Errorf("docs/S3.md says that %s lost its %s, and nothing was", heading, what)
		}
	}
	if len(seen) != 11 {
		t.Errorf("compared %v", slices.Sorted(maps.Keys(seen)))
	}
}
