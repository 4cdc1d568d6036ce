package envelope

import (
	"context"
	"errors"
	"fmt"
)

// NewMultiKeyring is generator and children as one keyring: generator, if any, makes the data key, all wrap it, and any
// of them opens it, asked in that order. Without a generator it only wraps a data key that there is.
func NewMultiKeyring(generator Keyring, children ...Keyring) Keyring {
	if generator == nil {
		return &multiKeyring{children: children}
	}
	return &multiKeyring{generates: true, children: append([]Keyring{generator}, children...)}
}

type multiKeyring struct {
	generates bool // the first makes a data key
	children  []Keyring
}

func (m *multiKeyring) wraps() (n int) {
	for _, k := range m.children {
		n += wraps(k)
	}
	return n
}

func (m *multiKeyring) OnEncrypt(ctx context.Context, em *EncryptionMaterials) error {
	if em.DataKey == nil && !m.generates {
		return errors.New("make data key: no keyring of several is there to make it")
	}
	for _, k := range m.children {
		if err := k.OnEncrypt(ctx, em); err != nil {
			return err
		}
		if em.DataKey == nil {
			return fmt.Errorf("make data key: the keyring made none")
		}
	}
	return nil
}

func (m *multiKeyring) OnDecrypt(ctx context.Context, dm *DecryptionMaterials, keys []EncryptedDataKey) error {
	var causes []error
	for _, k := range m.children {
		err := k.OnDecrypt(ctx, dm, keys)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrNoKey):
			return err
		}
		causes = append(causes, causesOf(err)...)
	}
	return &noKeyError{causes}
}
