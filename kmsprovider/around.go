package kmsprovider

import (
	"context"
	"io"
)

// Around returns a provider that does what p does, each call by way of around:
// that makes it, or does not, and its error is the caller's. The operation is
// named as the method of Provider. It is an io.Closer, which closes p if p is one.
func Around(p Provider, around func(ctx context.Context, operation string, call func(context.Context) error) error) Provider {
	return &surrounded{p, around}
}

type surrounded struct {
	provider Provider
	around   func(context.Context, string, func(context.Context) error) error
}

func (s *surrounded) Name() string { return s.provider.Name() }

func (s *surrounded) GenerateDataKey(ctx context.Context, keyID string, ec Context) (plaintext, wrapped []byte, err error) {
	err = s.around(ctx, "GenerateDataKey", func(ctx context.Context) (err error) {
		plaintext, wrapped, err = s.provider.GenerateDataKey(ctx, keyID, ec)
		return err
	})
	return plaintext, wrapped, err
}

func (s *surrounded) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec Context) (plaintext []byte, err error) {
	err = s.around(ctx, "Decrypt", func(ctx context.Context) (err error) {
		plaintext, err = s.provider.Decrypt(ctx, keyID, wrapped, ec)
		return err
	})
	return plaintext, err
}

func (s *surrounded) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec Context) (wrapped []byte, err error) {
	err = s.around(ctx, "Encrypt", func(ctx context.Context) (err error) {
		wrapped, err = s.provider.Encrypt(ctx, keyID, plaintext, ec)
		return err
	})
	return wrapped, err
}

func (s *surrounded) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC Context, to string, toEC Context) (rewrapped []byte, err error) {
	err = s.around(ctx, "ReEncrypt", func(ctx context.Context) (err error) {
		rewrapped, err = s.provider.ReEncrypt(ctx, wrapped, from, fromEC, to, toEC)
		return err
	})
	return rewrapped, err
}

func (s *surrounded) DescribeKey(ctx context.Context, keyID string) (info KeyInfo, err error) {
	err = s.around(ctx, "DescribeKey", func(ctx context.Context) (err error) {
		info, err = s.provider.DescribeKey(ctx, keyID)
		return err
	})
	return info, err
}

// Close closes the provider below, if it can be closed.
func (s *surrounded) Close() error {
	if c, ok := s.provider.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
