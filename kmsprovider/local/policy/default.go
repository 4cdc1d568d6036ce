package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// What key administrators and key users may do: the lists of AWS's console.
var (
	administratorActions = []string{
		"kms:Create*", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*", "kms:Update*", "kms:Revoke*", "kms:Disable*",
		"kms:Get*", "kms:Delete*", "kms:ImportKeyMaterial", "kms:TagResource", "kms:UntagResource",
		"kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:RotateKeyOnDemand",
	}
	userActions = []string{"kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"}
)

type documentJSON struct {
	Version   string          `json:"Version"`
	ID        string          `json:"Id"`
	Statement []statementJSON `json:"Statement"`
}

type statementJSON struct {
	Sid       string              `json:"Sid"`
	Effect    string              `json:"Effect"`
	Principal map[string][]string `json:"Principal"`
	Action    []string            `json:"Action"`
	Resource  string              `json:"Resource"`
}

// Default is the policy of a key that was made without one, AWS's: the account's
// root may do everything, and so lets the policies of its principals decide.
func Default(account string) []byte {
	return encode(documentJSON{Version: version2012, ID: "key-default-1", Statement: []statementJSON{accountStatement(account)}})
}

// WithAdministratorsAndUsers is Default with two sets of principals beside it:
// those who manage the key and cannot use it, and those who use it and cannot
// manage it. A principal is an ARN, an account ID, or the NAME of a user of the
// account. An empty set gets no statement.
func WithAdministratorsAndUsers(account string, administrators, users []string) []byte {
	d := documentJSON{Version: version2012, ID: "key-administrators-and-users", Statement: []statementJSON{accountStatement(account)}}
	for _, s := range []struct {
		sid        string
		principals []string
		actions    []string
	}{
		{"Allow access for Key Administrators", administrators, administratorActions},
		{"Allow use of the key", users, userActions},
	} {
		if len(s.principals) > 0 {
			d.Statement = append(d.Statement, allow(s.sid, arnsOf(account, s.principals), s.actions))
		}
	}
	return encode(d)
}

func accountStatement(account string) statementJSON {
	return allow("Enable IAM User Permissions", []string{"arn:aws:iam::" + account + ":root"}, []string{"kms:*"})
}

func allow(sid string, principals, actions []string) statementJSON {
	return statementJSON{Sid: sid, Effect: "Allow", Principal: map[string][]string{"AWS": principals}, Action: actions, Resource: "*"}
}

func arnsOf(account string, names []string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		if !strings.HasPrefix(name, "arn:") && !isAccount(name) && name != "*" {
			name = "arn:aws:iam::" + account + ":user/" + name
		}
		out = append(out, name)
	}
	return out
}

func encode(d documentJSON) []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("policy: marshal strings: %v", err))
	}
	return b
}
