// Package policy reads and decides AWS policy documents: key policies, and the
// policies of principals that AWS calls identity-based. It is pure: bytes in,
// decisions out.
//
// The language is that of AWS's "IAM JSON policy elements reference", in the
// versions 2012-10-17 and 2008-10-17 (the one meant where none is given).
// Documents are read strictly: an element, operator, principal or value that is
// not understood is refused by name, since a policy that is read wrongly lets in
// whoever it was to keep out.
//
// # Decisions
//
//   - A statement applies when principal, action, resource and all conditions
//     match. Deny wins over Allow; where nothing applies, the decision is None.
//   - An account (its ID or root ARN) as the principal of an Allow hands the
//     decision to the identity policies of that account: Decide says None for
//     its users and Delegates says true. Only the root itself is allowed. As the
//     principal of a Deny it stands for everybody in the account.
//   - A key that the request has not does not match, except under the negated
//     operators, …IfExists and ForAllValues. Of several values of a policy one
//     has to match; under a negated operator, none.
//   - Condition keys are named without regard to case, also the part of
//     kms:EncryptionContext:NAME that is a caller's, as in AWS. Where two names
//     of a request differ in case only, each one's values count.
//   - Policy variables, ${aws:username} or ${aws:username, 'nobody'}, stand in
//     Resource and in string and ARN conditions of version 2012-10-17. One
//     without a value equals nothing. A value's own * and ? are no wildcards.
//
// # Deviations from AWS
//
//   - A key policy's statement without Resource is refused; AWS keeps it without
//     effect.
//   - Allow with NotPrincipal, BinaryEquals, and the principal types Federated
//     and CanonicalUser are refused. Service principals are read and match
//     nobody, since no AWS service calls this KMS.
//   - Whether a principal exists is not asked.
//
// # Files
//
//	policy.go     Policy, Request, Decision: deciding
//	parse.go      documents and their statements
//	members.go    JSON objects and lists, read strictly
//	principal.go  Principal and NotPrincipal
//	action.go     Action, NotAction, Resource and NotResource
//	condition.go  Condition: the keys of a request against a policy's values
//	operators.go  the condition operators
//	values.go     numbers, dates, truth values and addresses
//	pattern.go    wildcards and policy variables
//	arn.go        patterns of ARNs, by their parts
//	default.go    the policies that new keys get
package policy
