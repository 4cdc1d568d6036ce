package crypto

// Binder computes bindings, which tie the record of a file or directory to its name: HMAC-SHA256(k, directory ID ‖
// name), the first 16 bytes, with k the volume key's key for LabelBind. Safe for concurrent use.
type Binder struct {
	key *Key
}

// NewBinder derives the binding key from the volume key, and keeps nothing else of it.
func NewBinder(vk *Key) *Binder { return &Binder{key: vk.Derive(LabelBind)} }

// Wipe overwrites the key; the binder must not be used beside or after it.
func (b *Binder) Wipe() { b.key.Wipe() }

// Binding of a plaintext name in the directory dir. Zeros in a record mean a free slot; that a real binding were all
// zeros has a chance of 2^-128 and is not provided for.
func (b *Binder) Binding(dir ID, name string) [16]byte {
	mac := b.key.MAC(dir[:], []byte(name))
	return [16]byte(mac[:])
}
