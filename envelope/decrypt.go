package envelope

import (
	"context"
	"errors"
	"io"

	"kmsfs/kmsprovider"
)

// DecryptOptions say what is demanded of a message.
type DecryptOptions struct {
	Keyring Keyring
	Policy  CommitmentPolicy
	// Context holds pairs that must be equal; those that the message does not store take part in authentication.
	Context        kmsprovider.Context
	ContextKeys    []string // keys that must be present
	MaxDataKeys    int      // 0: no cap
	RefuseSigned   bool     // signed messages are ErrSigned
	Workers        int      // 0: GOMAXPROCS
	MaxFrameLength int      // bytes; 0: DefaultMaxFrameLength
	// Provisional says that what was written to dst is thrown away unless Decrypt returns nil: a temporary file. The
	// plaintext of a body that is not framed may then go there before its tag is verified. Otherwise such a body is
	// held in memory, up to a limit.
	Provisional bool
	Progress    func(ciphertext int64)
}

// DefaultMaxFrameLength is the longest frame that is read, in bytes, unless the caller says otherwise.
const DefaultMaxFrameLength = 256 << 20

// Decrypt reads one message from src and writes its plaintext to dst. The header that it returns is authentic.
func Decrypt(ctx context.Context, dst io.Writer, src io.Reader, o DecryptOptions) (*Header, error) {
	return nil, errors.New("decrypt: not written yet")
}
