package local

import "context"

// allKeys describes all keys in the order of their creation, page by page.
func allKeys(ctx context.Context, k *Keystore) (all []KeyMetadata, err error) {
	in := ListKeysInput{}
	for {
		list, err := do[ListKeysOutput](ctx, k, &in)
		if err != nil {
			return nil, err
		}
		for _, entry := range list.Keys {
			m, err := do[DescribeKeyOutput](ctx, k, &DescribeKeyInput{KeyID: entry.KeyID})
			if err != nil {
				return nil, err
			}
			all = append(all, m.KeyMetadata)
		}
		if in.Marker = list.NextMarker; !list.Truncated {
			return all, nil
		}
	}
}

// AllKeys is allKeys for the tests in package local_test.
var AllKeys = allKeys

// AllAliases lists all aliases.
func AllAliases(ctx context.Context, k *Keystore) ([]Alias, error) {
	out, err := do[ListAliasesOutput](ctx, k, &ListAliasesInput{})
	if err != nil {
		return nil, err
	}
	return out.Aliases, nil
}

// Describe describes a key.
func Describe(ctx context.Context, k *Keystore, keyID string) (KeyMetadata, error) {
	out, err := do[DescribeKeyOutput](ctx, k, &DescribeKeyInput{KeyID: keyID})
	if err != nil {
		return KeyMetadata{}, err
	}
	return out.KeyMetadata, nil
}
