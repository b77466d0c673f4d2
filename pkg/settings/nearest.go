package settings

import "strings"

// hint names the key that was probably meant.
func (r *reader) hint(name string) string {
	return r.hintOf(name, func(k Key) string { return k.Name })
}

func (r *reader) hintOf(name string, say func(Key) string) string {
	if len(name) > 80 {
		return ""
	}
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	best, least := Key{}, max(2, len(name)/3)+1
	for _, k := range r.program.all() {
		if d := distance(name, k.Name); d < least {
			best, least = k, d
		}
	}
	if best.Name == "" {
		return ""
	}
	return "; did you mean " + say(best) + "?"
}

// distance counts the letters to add, take away or change to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a[:i] to b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0] // of a[:i] to b[:j]
		row[0] = i + 1
		for j := range len(b) {
			change := left
			if a[i] != b[j] {
				change++
			}
			left = row[j+1]
			row[j+1] = min(change, left+1, row[j]+1)
		}
	}
	return row[len(b)]
}
