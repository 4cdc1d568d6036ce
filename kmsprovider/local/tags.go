package local

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tag is a pair that a key is marked with. Tags are no secret, and policies may
// depend on them.
type Tag struct {
	TagKey   string `json:"TagKey"`   // 1 to 128 characters, not starting with aws:
	TagValue string `json:"TagValue"` // up to 256 characters
}

const maxTags = 50 // of a key

// TagResourceInput adds tags to a key or changes their values.
type TagResourceInput struct {
	KeyID string `json:"KeyId"`
	Tags  []Tag  `json:"Tags"`
}

func (in *TagResourceInput) operation() operation {
	return managing("TagResource", in.KeyID, notDying)
}

func (in *TagResourceInput) check() error { return checkTags(in.Tags, false) }

func (in *TagResourceInput) conditions() map[string][]string { return tagConditions(in.Tags) }

func (in *TagResourceInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	for _, t := range in.Tags {
		if i := slices.IndexFunc(r.Tags, func(had Tag) bool { return had.TagKey == t.TagKey }); i >= 0 {
			r.Tags[i] = t
		} else {
			r.Tags = append(r.Tags, t)
		}
	}
	if len(r.Tags) > maxTags {
		return nil, refuse(codeLimit, "A key can have %d tags at most.", maxTags)
	}
	return nil, nil
}

// UntagResourceInput removes tags from a key; those that it has not are no
// error.
type UntagResourceInput struct {
	KeyID   string   `json:"KeyId"`
	TagKeys []string `json:"TagKeys"`
}

func (in *UntagResourceInput) operation() operation {
	return managing("UntagResource", in.KeyID, notDying)
}

func (in *UntagResourceInput) conditions() map[string][]string {
	return map[string][]string{"aws:TagKeys": in.TagKeys}
}

func (in *UntagResourceInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	r.Tags = slices.DeleteFunc(r.Tags, func(t Tag) bool { return slices.Contains(in.TagKeys, t.TagKey) })
	return nil, nil
}

// ListResourceTagsInput lists a key's tags.
type ListResourceTagsInput struct {
	KeyID  string `json:"KeyId"`
	Limit  *int   `json:"Limit,omitempty"` // 1 to 1000; nil: 50
	Marker string `json:"Marker,omitempty"`
}

// ListResourceTagsOutput is ListResourceTags's.
type ListResourceTagsOutput struct {
	Tags       []Tag  `json:"Tags"`
	NextMarker string `json:"NextMarker,omitempty"`
	Truncated  bool   `json:"Truncated"`
}

func (in *ListResourceTagsInput) operation() operation {
	op := onKey("ListResourceTags", in.KeyID, anyState)
	op.byKey = true
	return op
}

func (in *ListResourceTagsInput) perform(c *call) (any, error) {
	some, next, err := page(c.key.record.Tags, in.Limit, maxTags, in.Marker, func(t Tag) string { return t.TagKey })
	return &ListResourceTagsOutput{Tags: some, NextMarker: next, Truncated: next != ""}, err
}

// checkTags applies AWS's rules; those that are stored are not over maxTags.
func checkTags(tags []Tag, stored bool) error {
	seen := make(map[string]bool, len(tags))
	for _, t := range tags {
		problem := ""
		switch {
		case seen[t.TagKey]:
			problem = "Duplicate tag keys"
		case t.TagKey == "" || utf8.RuneCountInString(t.TagKey) > 128 || !utf8.ValidString(t.TagKey):
			problem = "A tag key must have 1 to 128 characters"
		case utf8.RuneCountInString(t.TagValue) > 256 || !utf8.ValidString(t.TagValue):
			problem = "A tag value must have up to 256 characters"
		case strings.HasPrefix(strings.ToLower(t.TagKey), "aws:"):
			problem = "Tag keys that start with aws: are reserved"
		}
		if problem != "" {
			return refuse("TagException", "%s: %.150q", problem, t.TagKey).of(errBadTag)
		}
		seen[t.TagKey] = true
	}
	if len(tags) > maxTags {
		return refuse(codeLimit, "A key can have %d tags at most.", maxTags)
	}
	if stored && tags != nil && len(tags) == 0 {
		return fmt.Errorf("an empty list of tags")
	}
	return nil
}

// tagConditions are the condition keys of a request that sets tags.
func tagConditions(tags []Tag) map[string][]string {
	c := make(map[string][]string, len(tags)+1)
	for _, t := range tags {
		c["aws:RequestTag/"+t.TagKey] = []string{t.TagValue}
		c["aws:TagKeys"] = append(c["aws:TagKeys"], t.TagKey)
	}
	return c
}
