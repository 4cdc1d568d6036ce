package envelope

import (
	"context"
	"errors"
	"io"

	"kmsfs/kmsprovider"
)

// DefaultFrameLength is the plaintext of a frame, in bytes.
const DefaultFrameLength = 64 << 10

// EncryptOptions say how a message is made.
type EncryptOptions struct {
	Keyring             Keyring
	Suite               Suite               // 0: SuiteCommitSigned
	Policy              CommitmentPolicy    //
	Context             kmsprovider.Context // whole, the required pairs among it
	RequiredContextKeys []string            // of Context: authenticated, not stored in the message
	FrameLength         int                 // bytes; 0: DefaultFrameLength
	MaxDataKeys         int                 // 0: no cap but the format's
	Workers             int                 // 0: GOMAXPROCS
	Progress            func(plaintext int64)
}

// Encrypt reads src to its end and writes it to dst as one message. The header that it returns is the one written.
func Encrypt(ctx context.Context, dst io.Writer, src io.Reader, o EncryptOptions) (*Header, error) {
	return nil, errors.New("encrypt: not written yet")
}
