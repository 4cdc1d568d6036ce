package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kmsfs/integration/program"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsserver"
)

const (
	signedSuite   = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384"
	unsignedSuite = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"
)

// encryption is the work of making a message of the input.
func encryption(name, suite string) workload {
	return workload{
		name: name, what: "a file into a message of the AWS Encryption SDK, " + suite, kind: commands,
		run: func(ctx context.Context, in input, at mount) error {
			d := at.(*desk)
			return d.encrypt(ctx, d.program, suite, in.plain, d.out())
		},
	}
}

// decryption is that of reading one, which kmsfs made.
func decryption(name, suite string) workload {
	return workload{
		name: name, what: "and back", kind: commands,
		on: &preparation{name: name, fill: func(ctx context.Context, in input, at mount) error {
			d := at.(*desk)
			return d.encrypt(ctx, d.writer, suite, in.plain, d.message())
		}},
		run: func(ctx context.Context, in input, at mount) error {
			d := at.(*desk)
			if err := d.decrypt(ctx, d.message(), d.out()); err != nil {
				return err
			}
			info, err := os.Stat(d.out())
			if err == nil && info.Size() != in.size {
				err = fmt.Errorf("%d bytes came of %d", info.Size(), in.size)
			}
			return err
		},
	}
}

// commandSubject is a command that knows aws-encryption-cli's flags, and writes
// and reads frames of frame bytes. The messages that it reads are writer's.
func commandSubject(name, command, writer string, frame int) subject {
	return subject{
		name: name, store: fmt.Sprintf("message-%d", frame), kind: commands,
		what: fmt.Sprintf("%s with frames of %d KiB, its keys in a local KMS", filepath.Base(command), frame>>10),
		make: makeKey,
		mount: func(ctx context.Context, p place) (mount, error) {
			return newDesk(ctx, desk{place: p, program: command, writer: writer, frame: frame})
		},
	}
}

// desk is where a command works: files, and a KMS that is served to it.
type desk struct {
	place
	program, writer string
	frame           int
	key             string // ARN
	env             []string
	stop            func() error
	used            usage // by the last command
}

func makeKey(ctx context.Context, p place) error {
	store, err := local.Create(ctx, keystoreOptions(p.state))
	if err != nil {
		return err
	}
	defer store.Close()
	made, err := store.Do(ctx, store.Root(), &local.CreateKeyInput{})
	if err != nil {
		return err
	}
	return os.WriteFile(keyFile(p), []byte(made.(*local.CreateKeyOutput).KeyMetadata.ARN), 0o600)
}

func keyFile(p place) string { return filepath.Join(p.state, "key") }

// newDesk serves the keystore of d's place.
func newDesk(ctx context.Context, d desk) (mount, error) {
	key, err := os.ReadFile(keyFile(d.place))
	if err != nil {
		return nil, err
	}
	d.key = string(key)
	store, err := local.Open(ctx, keystoreOptions(d.state))
	if err != nil {
		return nil, err
	}
	listener, err := kmsserver.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	serving, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- kmsserver.New(kmsserver.Options{KMS: store, Auth: kmsserver.AuthNone}).Serve(serving, listener)
	}()
	d.stop = func() error {
		cancel()
		return errors.Join(<-done, store.Close())
	}
	d.env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") })
	d.env = append(d.env, "AWS_ENDPOINT_URL_KMS=http://"+listener.Addr().String(), "AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	return &d, nil
}

func (d *desk) dir() string     { return d.backing }
func (d *desk) message() string { return filepath.Join(d.backing, "message") }
func (d *desk) out() string     { return filepath.Join(d.backing, "out") }

func (d *desk) unmount() (usage, error) {
	return d.used, errors.Join(d.stop(), os.RemoveAll(d.out()))
}

func (d *desk) encrypt(ctx context.Context, command, suite, in, out string) error {
	return d.run(ctx, command, "--encrypt", "--algorithm", suite, "--frame-length", strconv.Itoa(d.frame), "--input", in, "--output", out)
}

func (d *desk) decrypt(ctx context.Context, in, out string) error {
	return d.run(ctx, d.program, "--decrypt", "--input", in, "--output", out)
}

func (d *desk) run(ctx context.Context, command string, args ...string) error {
	c := exec.CommandContext(ctx, command, append(args, "--wrapping-keys", "key="+d.key, "--suppress-metadata")...)
	var said bytes.Buffer
	c.Env, c.Stdout, c.Stderr = d.env, &said, &said
	peak, err := program.Run(c)
	if err != nil {
		return fmt.Errorf("run %s %q: %w\n%s", command, args, err, &said)
	}
	d.used = usage{Peak: peak, CPU: (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()}
	return nil
}
