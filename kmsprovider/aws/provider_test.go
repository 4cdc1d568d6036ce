package aws_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
)

func TestAnswersOfTheKeyThatWasAskedAreTaken(t *testing.T) {
	for asked, answered := range map[string]string{keyARN: keyARN, primaryARN: primaryARN, aliasARN: keyARN} {
		p, proxy := behind(t, fake(func(string) answer { return good(answered) }), aws.Options{})
		for operation, err := range operations(t, p, asked) {
			// The fake's answer to ReEncrypt names one key for both.
			if err != nil {
				t.Errorf("%s of %s: %v", operation, asked, err)
			}
		}
		if counts := proxy.Counts(); len(counts) != 5 || counts["Decrypt"] != 1 || counts["ReEncrypt"] != 1 {
			t.Errorf("requests: %v", counts)
		}
	}
}

func TestAnswersOfAnotherKeyAreRefused(t *testing.T) {
	for _, c := range []struct{ asked, answered string }{
		{keyARN, otherARN}, {keyARN, foreignARN}, {keyARN, aliasARN}, {keyARN, ""},
		{primaryARN, replicaARN}, {aliasARN, foreignARN}, {aliasARN, replicaARN}, {aliasARN, aliasARN},
		{aliasARN, "arn:aws:kms:eu-central-1:111122223333:key/"},
	} {
		p, _ := behind(t, fake(func(string) answer { return good(c.answered) }), aws.Options{})
		for operation, err := range operations(t, p, c.asked) {
			if !errors.Is(err, kmsprovider.ErrIncorrectKey) || !strings.Contains(err.Error(), c.asked) {
				t.Errorf("%s: %s answered for %s: %v", operation, c.answered, c.asked, err)
			}
		}
	}
	p, _ := behind(t, fake(func(string) answer { return good(keyARN).with(answer{"SourceKeyId": otherARN}) }), aws.Options{})
	if err := operations(t, p, keyARN)["ReEncrypt"]; !errors.Is(err, kmsprovider.ErrIncorrectKey) {
		t.Errorf("ReEncrypt from another key: %v", err)
	}
}

func TestAnswersThatMakeNoSenseAreRefused(t *testing.T) {
	none := any(nil)
	for name, c := range map[string]struct {
		change  answer
		refused string // the operations that see it
	}{
		"no KeyId":                {answer{"KeyId": none, "KeyMetadata": answer{"KeyState": "Enabled"}}, "GenerateDataKey Decrypt Encrypt ReEncrypt DescribeKey"},
		"no metadata":             {answer{"KeyMetadata": none}, "DescribeKey"},
		"no plaintext":            {answer{"Plaintext": none}, "GenerateDataKey Decrypt"},
		"an empty plaintext":      {answer{"Plaintext": []byte{}}, "GenerateDataKey Decrypt"},
		"a short data key":        {answer{"Plaintext": secret[:31]}, "GenerateDataKey"},
		"a long data key":         {answer{"Plaintext": append(secret[:32:32], 1)}, "GenerateDataKey"},
		"a plaintext of 4097":     {answer{"Plaintext": bytes.Repeat(secret, 200)[:4097]}, "GenerateDataKey Decrypt"},
		"no ciphertext":           {answer{"CiphertextBlob": none}, "GenerateDataKey Encrypt ReEncrypt"},
		"a ciphertext of 6145":    {answer{"CiphertextBlob": bytes.Repeat(secret, 200)[:6145]}, "GenerateDataKey Encrypt ReEncrypt"},
		"no base64":               {answer{"Plaintext": "***", "CiphertextBlob": "***"}, "GenerateDataKey Decrypt Encrypt ReEncrypt"},
		"another type":            {answer{"KeyId": 7, "KeyMetadata": "none"}, "GenerateDataKey Decrypt Encrypt ReEncrypt DescribeKey"},
		"more than anybody reads": {answer{"Padding": strings.Repeat("x", 1<<20)}, "GenerateDataKey Decrypt Encrypt ReEncrypt DescribeKey"},
	} {
		p, proxy := behind(t, fake(func(string) answer { return good(keyARN).with(c.change) }), aws.Options{})
		for operation, err := range operations(t, p, keyARN) {
			if want := strings.Contains(" "+c.refused+" ", " "+operation+" "); want != errors.Is(err, kmsprovider.ErrUnavailable) || want != (err != nil) {
				t.Errorf("%s: %s: %v", name, operation, err)
			}
			if err != nil && (strings.Contains(err.Error(), "0123456789abcdef") || strings.Contains(fmt.Sprintf("%#v", err), "MDEyMzQ1Njc4OWFi")) {
				t.Errorf("%s: %s: the error shows the key", name, operation)
			}
		}
		for operation, n := range proxy.Counts() {
			if n != 1 {
				t.Errorf("%s: %d requests for %s", name, n, operation)
			}
		}
	}
}

func TestEachKeyIsAskedForInItsRegion(t *testing.T) {
	p, proxy := behind(t, fake(func(region string) answer {
		return good("arn:aws:kms:" + region + ":111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab")
	}), aws.Options{})
	for _, arn := range []string{primaryARN, replicaARN} {
		for operation, err := range operations(t, p, arn) {
			if err != nil {
				t.Errorf("%s of %s: %v", operation, arn, err)
			}
		}
	}
	proxy.Counts()
	// No KMS re-encrypts from one region to another.
	if _, err := p.ReEncrypt(t.Context(), []byte("wrapped"), primaryARN, nil, replicaARN, nil); err != nil {
		t.Fatal(err)
	}
	if counts := proxy.Counts(); len(counts) != 2 || counts["Decrypt"] != 1 || counts["Encrypt"] != 1 {
		t.Errorf("requests between regions: %v", counts)
	}
}

func TestDescribeKeyTellsInTheProvidersWords(t *testing.T) {
	for aws1, want := range map[string]string{
		"Enabled": kmsprovider.StateEnabled, "Updating": kmsprovider.StateEnabled, "Disabled": kmsprovider.StateDisabled,
		"PendingDeletion": kmsprovider.StatePendingDeletion, "PendingReplicaDeletion": kmsprovider.StatePendingDeletion,
		"PendingImport": kmsprovider.StatePendingImport, "Unavailable": kmsprovider.StateUnavailable, "Creating": kmsprovider.StateUnavailable,
		"SomethingNew": kmsprovider.StateUnavailable,
	} {
		p, _ := behind(t, fake(func(string) answer {
			return answer{"KeyMetadata": good(keyARN)["KeyMetadata"].(answer).with(answer{"KeyState": aws1})}
		}), aws.Options{})
		info, err := p.DescribeKey(t.Context(), aliasARN)
		if err != nil || info.State != want || info.KeyID != keyARN || info.Provider != "aws" || info.Manager != kmsprovider.ManagerAWS ||
			info.Origin != "AWS_KMS" || info.Description != "d" || info.Created.Unix() != 1500000000 {
			t.Errorf("%s: %+v, %v", aws1, info, err)
		}
	}
}

func TestNamesThatAreNoARNAreRefusedUnasked(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	for _, name := range []string{
		"", "alias/app", "1234abcd-12ab-34cd-56ef-1234567890ab", "local:alias/app", "arn:aws:kms:eu-central-1:1:key/x",
		"arn:aws:kms:evil.example/:111122223333:key/x", "arn:aws:kms:EU:111122223333:key/x", "arn:aws:kms:eu.central:111122223333:key/x",
	} {
		for operation, err := range operations(t, p, name) {
			if !errors.Is(err, kmsprovider.ErrInvalidInput) {
				t.Errorf("%s of %q: %v", operation, name, err)
			}
		}
	}
	if counts := proxy.Counts(); len(counts) != 0 {
		t.Errorf("requests: %v", counts)
	}
}
