package aws_test

import (
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
	"kmsfs/kmsprovider/providertest"
)

// connect makes a provider that talks to a server, and to nothing else.
func connect(t *testing.T, s *emulator.Server, url string, o aws.Options) *aws.Provider {
	t.Helper()
	for name, value := range s.Environment(url) {
		t.Setenv(name, value)
	}
	p := aws.New(o)
	t.Cleanup(func() { p.Close() })
	return p
}

// contract is a fixture with keys of its own on a server.
func contract(t *testing.T, s *emulator.Server, deviations []providertest.Deviation) providertest.Fixture {
	f := providertest.Fixture{
		Provider:   connect(t, s, s.URL, aws.Options{}),
		KeyID:      s.CreateKey(t),
		OtherKeyID: s.CreateKey(t),
		DisableKey: func(t testing.TB, keyID string) { s.DisableKey(t, keyID) },
		Deviations: deviations,
	}
	f.Alias = s.CreateAlias(t, "alias/contract-"+f.KeyID[len(f.KeyID)-36:], f.KeyID)
	return f
}

// motoDeviations is what moto 5.2.5 is seen to do.
var motoDeviations = []providertest.Deviation{
	{Check: "decrypt with the same letters in other pairs is refused", Instead: nil, Some: true, Why: "moto joins keys and values of the context without a separator"},
	{Check: "decrypt under another key is refused", Instead: kmsprovider.ErrAccessDenied, Why: "moto knows no IncorrectKeyException"},
	{Check: "an unknown key is not found", Instead: kmsprovider.ErrIncorrectKey, Some: true, Why: "moto's ReEncrypt ignores SourceKeyId; the provider sees it in the answer"},
	{Check: "a wrapped key with any byte changed is refused", Instead: kmsprovider.ErrAccessDenied, Some: true, Why: "moto takes a changed key ID in the blob for a key that it may not use"},
	{Check: "bytes that are no wrapped key are refused", Instead: kmsprovider.ErrAccessDenied, Some: true, Why: "moto takes them for the blob of another key"},
	{Check: "a disabled key cannot be used", Instead: nil, Why: "moto does not look at the state of a key"},
	{Check: "re-encrypt to a disabled key is refused", Instead: nil, Why: "moto does not look at the state of a key"},
}

func TestMotoKeepsTheProviderContractButForItsDeviations(t *testing.T) {
	server := emulator.Moto(t)
	providertest.Run(t, func(t *testing.T) providertest.Fixture { return contract(t, server, motoDeviations) })
}

func TestTheServedLocalKMSKeepsTheProviderContract(t *testing.T) {
	server := emulator.Local(t)
	providertest.Run(t, func(t *testing.T) providertest.Fixture { return contract(t, server, nil) })
}
