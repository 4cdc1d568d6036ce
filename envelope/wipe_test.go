package envelope

import (
	"bytes"
	"context"
	"io"
	"testing"
)

// keeper keeps what it is lent, to see what becomes of it.
type keeper struct {
	fixedKeyring
	io.Reader
	keys, read, written [][]byte
}

func (k *keeper) OnEncrypt(ctx context.Context, m *EncryptionMaterials) error {
	err := k.fixedKeyring.OnEncrypt(ctx, m)
	k.keys = append(k.keys, m.DataKey)
	return err
}

func (k *keeper) OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error {
	err := k.fixedKeyring.OnDecrypt(ctx, m, keys)
	k.keys = append(k.keys, m.DataKey)
	return err
}

func (k *keeper) Read(p []byte) (int, error) {
	k.read = append(k.read, p)
	return k.Reader.Read(p)
}

func (k *keeper) Write(p []byte) (int, error) {
	k.written = append(k.written, p)
	return len(p), nil
}

func checkZero(t *testing.T, what string, lent [][]byte) {
	t.Helper()
	if len(lent) == 0 {
		t.Errorf("%s: none was seen", what)
	}
	for _, b := range lent {
		if len(b) == 0 || !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s: %d bytes, not all zeros", what, len(b))
		}
	}
}

func TestKeysAndBuffersAreWiped(t *testing.T) {
	k := &keeper{Reader: bytes.NewReader(text(1 << 20))}
	if _, err := Encrypt(context.Background(), io.Discard, k, EncryptOptions{Keyring: k}); err != nil {
		t.Fatal(err)
	}
	checkZero(t, "data key of encryption", k.keys)
	checkZero(t, "plaintext read", k.read)

	for name, r := range map[string]reference{
		"framed":     {suite: SuiteCommitSigned, frameLength: 1000, plaintext: text(1 << 20)},
		"not framed": {suite: SuiteCommit, plaintext: text(1 << 20)},
	} {
		for _, damage := range []byte{0, 1} {
			m := r.message(t)
			m[len(m)/2] ^= damage
			k := &keeper{Reader: bytes.NewReader(m)}
			o := allowAll()
			o.Keyring = k
			if _, err := Decrypt(context.Background(), k, k, o); (err != nil) != (damage != 0) {
				t.Fatalf("%s: %v", name, err)
			}
			checkZero(t, name+", data key", k.keys)
			if damage == 0 || r.frameLength > 0 {
				checkZero(t, name+", plaintext written", k.written)
			}
		}
	}
}
