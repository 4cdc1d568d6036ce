package policy

// arnParts is how many parts an ARN has:
// arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE.
const arnParts = 6

// splitARN splits at the first five colons.
func splitARN(s []rune) [][]rune {
	var parts [][]rune
	start := 0
	for i, c := range s {
		if c == ':' && len(parts) < arnParts-1 {
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// matchResource matches a Resource with an ARN part by part. A * at the end of
// a part goes beyond the colon too.
func matchResource(glob []rune, arn string) bool {
	return matchParts(splitARN(glob), splitARN([]rune(arn)))
}

func matchParts(globs, parts [][]rune) bool {
	if len(globs) == 0 || len(parts) == 0 {
		return len(globs) == len(parts)
	}
	first := globs[0]
	if !matchGlob(first, parts[0]) {
		return false
	}
	if matchParts(globs[1:], parts[1:]) {
		return true
	}
	if len(first) == 0 || first[len(first)-1] != anyRunes {
		return false
	}
	for i := 2; i <= len(parts); i++ {
		if matchParts(globs[1:], parts[i:]) {
			return true
		}
	}
	return false
}

// matchARN is ArnLike and ArnEquals: each of the six parts on its own. A lone *
// matches every ARN.
func matchARN(glob []rune, arn string) bool {
	parts := splitARN([]rune(arn))
	if len(parts) != arnParts || string(parts[0]) != "arn" {
		return false
	}
	if len(glob) == 1 && glob[0] == anyRunes {
		return true
	}
	globs := splitARN(glob)
	if len(globs) != arnParts {
		return false
	}
	for i := range globs {
		if !matchGlob(globs[i], parts[i]) {
			return false
		}
	}
	return true
}
