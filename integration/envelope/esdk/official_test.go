package esdk

import (
	"slices"
	"testing"

	mpl "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygenerated"
	mpltypes "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygeneratedtypes"
	client "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygenerated"
	esdktypes "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygeneratedtypes"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"kmsfs/envelope"
)

// official is the SDK with one set of wrapping keys.
type official struct {
	commit, forbid *client.Client // with either commitment policy
	materials      *mpl.Client
	keyring        mpltypes.IKeyring
}

func newOfficial(t *testing.T) *official {
	t.Helper()
	materials, err := mpl.NewClient(mpltypes.MaterialProvidersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	o := &official{materials: materials}
	for policy, c := range map[mpltypes.ESDKCommitmentPolicy]**client.Client{
		mpltypes.ESDKCommitmentPolicyRequireEncryptRequireDecrypt: &o.commit,
		mpltypes.ESDKCommitmentPolicyForbidEncryptAllowDecrypt:    &o.forbid,
	} {
		if *c, err = client.NewClient(esdktypes.AwsEncryptionSdkConfig{CommitmentPolicy: &policy}); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// client is the one that may write a suite.
func (o *official) client(s envelope.Suite) *client.Client {
	if s.Commits() {
		return o.commit
	}
	return o.forbid
}

// manager makes keys of the context required: authenticated and not stored.
func (o *official) manager(t *testing.T, required []string) mpltypes.ICryptographicMaterialsManager {
	t.Helper()
	m, err := o.materials.CreateDefaultCryptographicMaterialsManager(t.Context(), mpltypes.CreateDefaultCryptographicMaterialsManagerInput{Keyring: o.keyring})
	if err == nil && len(required) > 0 {
		m, err = o.materials.CreateRequiredEncryptionContextCMM(t.Context(), mpltypes.CreateRequiredEncryptionContextCMMInput{UnderlyingCMM: m, RequiredEncryptionContextKeys: required})
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (o *official) encrypt(t *testing.T, m message) []byte {
	t.Helper()
	suite := mpltypes.ESDKAlgorithmSuiteId(m.suiteID())
	if !slices.Contains(suite.Values(), suite) {
		t.Fatalf("the SDK has no suite %s", suite)
	}
	in := esdktypes.EncryptInput{Plaintext: m.plaintext, AlgorithmSuiteId: &suite, EncryptionContext: m.context, MaterialsManager: o.manager(t, m.required)}
	if m.frameLength > 0 {
		n := int64(m.frameLength)
		in.FrameLength = &n
	}
	out, err := o.client(m.suite).Encrypt(t.Context(), in)
	if err != nil {
		t.Fatalf("the SDK encrypts: %v", err)
	}
	return out.Ciphertext
}

func (o *official) decrypt(t *testing.T, m message, ciphertext []byte) ([]byte, error) {
	t.Helper()
	out, err := o.client(m.suite).Decrypt(t.Context(), esdktypes.DecryptInput{Ciphertext: ciphertext, EncryptionContext: m.given(), MaterialsManager: o.manager(t, m.required)})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// kms adds KMS keys, the first of which generates.
func (o *official) kms(t *testing.T, c *kms.Client, arns ...string) *official {
	t.Helper()
	var rings []mpltypes.IKeyring
	for _, arn := range arns {
		k, err := o.materials.CreateAwsKmsKeyring(t.Context(), mpltypes.CreateAwsKmsKeyringInput{KmsClient: c, KmsKeyId: arn})
		if err != nil {
			t.Fatal(err)
		}
		rings = append(rings, k)
	}
	return o.several(t, rings)
}

func (o *official) several(t *testing.T, rings []mpltypes.IKeyring) *official {
	t.Helper()
	k, err := o.materials.CreateMultiKeyring(t.Context(), mpltypes.CreateMultiKeyringInput{Generator: rings[0], ChildKeyrings: rings[1:]})
	if err != nil {
		t.Fatal(err)
	}
	return &official{o.commit, o.forbid, o.materials, k}
}

var aesAlgorithms = map[int]mpltypes.AesWrappingAlg{
	16: mpltypes.AesWrappingAlgAlgAes128GcmIv12Tag16,
	24: mpltypes.AesWrappingAlgAlgAes192GcmIv12Tag16,
	32: mpltypes.AesWrappingAlgAlgAes256GcmIv12Tag16,
}

func (o *official) aes(t *testing.T, k rawKey) *official {
	t.Helper()
	ring, err := o.materials.CreateRawAesKeyring(t.Context(), mpltypes.CreateRawAesKeyringInput{
		KeyNamespace: rawNamespace, KeyName: k.name, WrappingAlg: aesAlgorithms[len(k.secret)], WrappingKey: k.secret,
	})
	if err != nil {
		t.Fatal(err)
	}
	return o.several(t, []mpltypes.IKeyring{ring})
}

var paddings = map[string]mpltypes.PaddingScheme{
	"RSA-OAEP-SHA1": mpltypes.PaddingSchemeOaepSha1Mgf1, "RSA-OAEP-SHA256": mpltypes.PaddingSchemeOaepSha256Mgf1,
	"RSA-OAEP-SHA384": mpltypes.PaddingSchemeOaepSha384Mgf1, "RSA-OAEP-SHA512": mpltypes.PaddingSchemeOaepSha512Mgf1,
	"RSA-PKCS1": mpltypes.PaddingSchemePkcs1,
}

func (o *official) rsa(t *testing.T, k rawKey) *official {
	t.Helper()
	ring, err := o.materials.CreateRawRsaKeyring(t.Context(), mpltypes.CreateRawRsaKeyringInput{
		KeyNamespace: rawNamespace, KeyName: k.name, PaddingScheme: paddings[k.algorithm], PrivateKey: k.secret, PublicKey: k.public,
	})
	if err != nil {
		t.Fatal(err)
	}
	return o.several(t, []mpltypes.IKeyring{ring})
}
