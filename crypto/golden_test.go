package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// The figures in this file were computed by an independent implementation: a script over Python's `cryptography` with
// HKDFExpand, CMAC, AESGCM and AESSIV. They are the format: if one of these tests fails, existing volumes no longer
// open. Add to them, never change them.
//
// Volume key: bytes 00…1f. Data key: 20…3f. Volume ID: a0…af. File ID: b0…bf. Directory ID: c0…cf. Nonce: d0…e7.

var (
	goldenVK     = testKey(0)
	goldenDEK    = testKey(0x20)
	goldenSecret = NewDataKeyCipher(goldenVK, testVolume).FileSecret(goldenDEK)
	goldenNonce  = []byte("\xd0\xd1\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xdb\xdc\xdd\xde\xdf\xe0\xe1\xe2\xe3\xe4\xe5\xe6\xe7")
)

const (
	goldenHeader = "6b6d736673000100b0b1b2b3b4b5b6b7b8b9babbbcbdbebfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7" +
		"0c68769a04d534b587c6991e8deafeb31947cae27286a6f8ef84ad3c3923f869ebce81a1f0cc702f014de48fee6f3788" +
		"a4547174b7be2a9715b0f9e48b495d5ce96d21d587ee4f35507276571811f74aeaa7c9142242187ba2412eae571ef6bd"
	goldenDirRecord = "6b6d736673646972c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7" +
		"d9b6b9d46d18b473e6eebb42f1fe8f29da37276f99e37a171030230e7bc728bf3bafcb28c71da1d262de2fc4602e1c9a" +
		"bcee230c28cec3d6d9effef9d5e34afc"
	goldenWrapped = "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7484c851fddc0d078c0ae87e78b4853203d490b5ac0dcc1ba" +
		"0af72aff985505318906fbb8c1b15f73cca8f76de21e5437"
	goldenCommitment = "16261db2f37438af093d38d6c30e4400b2d1002039009a6b9b05483c837baf13"
	goldenSidecar    = "6b6d7366736b657901a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf0206766f6c756d65" +
		"00004800" + goldenWrapped + "056c6f63616c03006b2f31040001020304" + goldenCommitment
	goldenSymlink = "0NHS09TV1tfY2drb3N3e3-Dh4uPk5ebntMSOGOavuDgknbHBteChOKuNbRfPNR60KhehukphmG_Gtw"
)

func goldenRecord() Record {
	r := Record{Flags: FlagLinked | FlagShared, Generation: 0x0102030405060708, Size: 1 << 40, Stored: 1 << 27}
	for i := range 16 {
		r.Root[i], r.BindingA[i], r.BindingB[i] = 0x11, 0x22, 0x33
	}
	return r
}

func goldenDir() DirRecord {
	r := DirRecord{ID: testDir}
	for i := range 16 {
		r.BindingA[i], r.BindingB[i] = 0x44, 0x55
	}
	return r
}

func TestDerivationsKeepTheirValues(t *testing.T) {
	for _, c := range []struct {
		name string
		got  *Key
		want string
	}{
		{"symlink", goldenVK.Derive(LabelSymlink), "513b589e55830648108446b763f4dafd1839d74a08500fae51e54e2b473d4c5d"},
		{"xattr", goldenVK.Derive(LabelXattr), "457f244ce917484bae6598d21b2fc94929ed17947b56a6d03f3b5c82053f8c23"},
		{"dir", goldenVK.Derive(LabelDir), "43300794cf0ee18d6cd18025f58ac694cb5a5f41af2f4d889b4b270337d5c7c9"},
		{"bind", goldenVK.Derive(LabelBind), "382cb0e111c1b5d77d6bcf1b71889c74767868fb4ce4741e25fe21bf85aa73dc"},
		{"config", goldenVK.Derive(LabelConfig), "7bf812c61eef4ac65343184af478fb028c7a3a9816fdab496cdf1023ec2bc3af"},
		{"wrap", goldenVK.Derive(LabelWrap), "58334c420fab4493382ad979c6b908e43d27bdb0e718e4377a3e8c613aa6dde9"},
		{"redo", goldenVK.Derive(LabelRedo), "7d687241b21167a2880da72fbf8095ad5e815362ff82d4d4db1d0068f7f1dec5"},
		{"manifest", goldenVK.Derive(LabelManifest), "d6f6f1523a9affb92f4d8319798f77e53292385a7842a2d2b1593ea9d9e21241"},
		{"fingerprint", goldenVK.Derive(LabelFingerprint), "a3912e46ad618b4c9420f005ed6bd99199cfdef97b7af79a04352942e6f2a8ba"},
		{"file salt", goldenVK.Derive(LabelFileSalt), "4abbac37abf5c03d4573c9e0816dec773a2d816856e99336987724353a189351"},
		{"root directory", goldenVK.Derive(LabelRootDirectory), "1b442e5074ceac573329f3962584c9df3fcc5facc63d6473511d54d31ad3ba3e"},
		{"record and file", goldenVK.Derive(LabelRecord, testFile), "ac3733fef244ad8b028cfbce4f550dd2932954bd5479ab2c9eab1563b3eea56c"},
		{"file secret", goldenSecret, "6028dd386a53b05b6ac360c7eae9e9575ada553d6b5763738075e93087caf4fe"},
		{"content", goldenSecret.Derive(LabelContent), "f6e900b71f18214f134ef69dfcbff0ce7d22dfdb56bf534ea32dc2b77bb0318a"},
		{"root", goldenSecret.Derive(LabelRoot), "92e990455ecb179baf43ac8b5a503b49b46a0fea365ac8aa01e86ffdca9d051b"},
		{"commit", goldenSecret.Derive(LabelCommit, testVolume, testFile), goldenCommitment},
	} {
		if got := hex.EncodeToString(c.got.Bytes()); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := hex.EncodeToString(goldenVK.expand(LabelNames, 64)); got != "3712f1c23d6bcb3c465497ff214162ef53d301731f53d3146d3fa9f2793ab1ba"+
		"11c883fafab7a546ce1178cf7e162a783c9ed51c0c1c943fbd9b7c5e0e9d5f55" {
		t.Errorf("names: %s", got)
	}
	if got := Commitment(goldenSecret, testVolume, testFile); hex.EncodeToString(got[:]) != goldenCommitment {
		t.Errorf("commitment: %x", got)
	}
	if got := RootDirectoryID(goldenVK).String(); got != "1b442e5074ceac573329f3962584c9df" {
		t.Errorf("root directory: %s", got)
	}
	if got := Fingerprint(goldenVK); hex.EncodeToString(got[:]) != "a3912e46ad618b4c9420f005ed6bd99199cfdef97b7af79a04352942e6f2a8ba" {
		t.Errorf("fingerprint: %x", got)
	}
}

func TestBlocksKeepTheirBytes(t *testing.T) {
	c := NewBlockCipher(goldenSecret.Derive(LabelContent), testFile)
	s := must(c.NewSealer(bytes.NewReader(goldenNonce)))
	record := make([]byte, 45)
	if err := s.Seal(record, []byte("hello"), 7); err != nil {
		t.Fatal(err)
	}
	want := "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e722ea6f39284b85d9d8935fd4387dba72b8cc932add"
	if got := hex.EncodeToString(record); got != want {
		t.Errorf("block: %s, want %s", got, want)
	}
	plain := make([]byte, 5)
	if err := c.Open(plain, unhex(want), 7); err != nil || string(plain) != "hello" {
		t.Errorf("opened %q, %v", plain, err)
	}

	root := NewRooter(goldenSecret.Derive(LabelRoot))
	if got := root.Term(7, RecordTag(record)); hex.EncodeToString(got[:]) != "26578ad53101b56389e20e2411199850" {
		t.Errorf("term of block 7: %x", got)
	}
	if got := root.Term(1<<64-1, [16]byte{}); hex.EncodeToString(got[:]) != "0b1e04225c45b2d36e39ae4fccd9b24b" {
		t.Errorf("term of the last index: %x", got)
	}

	// Two blocks from index 2^33 on, with second halves of the nonce e0…e7… of the golden nonce and 10…1b.
	random := append(bytes.Clone(goldenNonce), "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b"...)
	s = must(c.NewSealer(bytes.NewReader(random)))
	long := make([]byte, BlockSize+1)
	for i := range long {
		long[i] = byte(i * 7 % 251)
	}
	records := make([]byte, CipherLen(len(long)))
	if err := s.Seal(records, long, 1<<33); err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(records); hex.EncodeToString(got[:]) != "e009f49a300bd1e4b7761d0d56efe1ce4dda8717092745941496682f873a2801" {
		t.Errorf("hash of two blocks: %x", got)
	}
}

func TestRecordsKeepTheirBytes(t *testing.T) {
	c := NewRecordCipher(goldenVK, testVolume, testFile)
	header := make([]byte, HeaderSize)
	if err := must(c.NewSealer(bytes.NewReader(goldenNonce))).Seal(header, goldenRecord()); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(header); got != goldenHeader {
		t.Errorf("header: %s, want %s", got, goldenHeader)
	}
	if r, err := c.Open(unhex(goldenHeader)); err != nil || r != goldenRecord() {
		t.Errorf("opened %+v, %v", r, err)
	}

	d := NewDirCipher(goldenVK, testVolume)
	dir := make([]byte, DirRecordSize)
	if err := d.Seal(dir, bytes.NewReader(goldenNonce), goldenDir()); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(dir); got != goldenDirRecord {
		t.Errorf("directory record: %s, want %s", got, goldenDirRecord)
	}
	if r, err := d.Open(unhex(goldenDirRecord)); err != nil || r != goldenDir() {
		t.Errorf("opened %+v, %v", r, err)
	}
	if got := NewBinder(goldenVK).Binding(testDir, "Jahresbericht ü.txt"); hex.EncodeToString(got[:]) != "1a3505c708473069c284228c1478070b" {
		t.Errorf("binding: %x", got)
	}
}

func TestNamesKeepTheirBytes(t *testing.T) {
	n := NewNameCipher(goldenVK)
	for name, want := range map[string]string{
		"a":                   "UIwZdVEllufYDZ2zA0BtSrulfMly4VdKG_vdha6jMwc",
		"Jahresbericht ü.txt": "pNnfymZ7WqY7bqDfjWUjBoZawiBSIcEcEpc3h_RJv5DurWYBazfcQi9rp7npsttg",
		"sixteen bytes ok":    "_bDXBFF5eTFjfv7i5YH91j6dfJOQry0Poks4tL-vfvJ8by45723VYnSY6i71eqrA",
	} {
		if got, err := n.Encrypt(testDir, name); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
		if got, err := n.Decrypt(testDir, want); err != nil || got != name {
			t.Errorf("%s: opened %q, %v", want, got, err)
		}
	}
	enc := must(n.Encrypt(testDir, string(bytes.Repeat([]byte("x"), 255))))
	if got := ShortName(enc); got != "L.uJNsTUixRroziXue3UxGVo2CRqEl1VdsZb9qxqwLTK4" {
		t.Errorf("short name: %s", got)
	}
	if got := must(n.EncryptXattrName("user.comment")); got != "user.kmsfs.pLptDTOBJjmvUmAO8ab7F_wGssDnbiZlK-dEOA" {
		t.Errorf("attribute name: %s", got)
	}
}

func TestSealedMessagesKeepTheirBytes(t *testing.T) {
	value := "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e0bc23133b070fbd542f9193a1979563dd02bc91a9ad80"
	x := NewXattrCipher(goldenVK)
	if got := must(x.Seal(bytes.NewReader(goldenNonce), testFile, "user.comment", []byte("checked"))); hex.EncodeToString(got) != value {
		t.Errorf("attribute: %x", got)
	}
	if got, err := x.Open(testFile, "user.comment", unhex(value)); err != nil || string(got) != "checked" {
		t.Errorf("attribute: opened %q, %v", got, err)
	}
	s := NewSymlinkCipher(goldenVK, testVolume)
	if got := EncodeSymlink(must(s.Seal(bytes.NewReader(goldenNonce), "../shared/plan.odt"))); got != goldenSymlink {
		t.Errorf("symlink: %s", got)
	}
	if got, err := s.Open(must(DecodeSymlink(goldenSymlink))); err != nil || got != "../shared/plan.odt" {
		t.Errorf("symlink: opened %q, %v", got, err)
	}
	wrapped := must(NewDataKeyCipher(goldenVK, testVolume).Wrap(bytes.NewReader(goldenNonce), testFile, goldenDEK))
	if hex.EncodeToString(wrapped) != goldenWrapped {
		t.Errorf("wrapped data key: %x", wrapped)
	}
	if got, err := NewDataKeyCipher(goldenVK, testVolume).Unwrap(testFile, unhex(goldenWrapped)); err != nil || !bytes.Equal(got.Bytes(), goldenDEK.Bytes()) {
		t.Errorf("unwrapped data key differs, %v", err)
	}
}

func TestSidecarKeepsItsBytes(t *testing.T) {
	s := goldenSidecarValue()
	if got := hex.EncodeToString(must(s.Marshal())); got != goldenSidecar {
		t.Errorf("sidecar: %s, want %s", got, goldenSidecar)
	}
	parsed, err := ParseSidecar(unhex(goldenSidecar))
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.CheckCommitment(goldenSecret); err != nil {
		t.Error(err)
	}
}

func goldenSidecarValue() *Sidecar {
	return &Sidecar{
		Volume: testVolume, File: testFile,
		Keys:       []WrappedKey{{"volume", "", unhex(goldenWrapped)}, {"local", "k/1", []byte{1, 2, 3, 4}}},
		Commitment: [32]byte(unhex(goldenCommitment)),
	}
}
