package catalog

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// lineOf finds the line of a path such as clientApps[0].masterUserId, or of the
// innermost part of it that the file has.
func lineOf(root *yaml.Node, path string) int {
	node, line := resolve(root), root.Line
	for path != "" {
		var step string
		step, path = cutStep(path)
		key, value := child(node, step)
		if value == nil {
			return line
		}
		node, line = resolve(value), key.Line
	}
	return line
}

// cutStep takes the first step off a path: a key, or an index in its brackets.
func cutStep(path string) (step, rest string) {
	end := strings.IndexAny(path[1:], ".[")
	if end < 0 {
		return path, ""
	}
	step, rest = path[:end+1], path[end+1:]
	return step, strings.TrimPrefix(rest, ".")
}

// child returns the value that a step leads to, and the node whose line is meant
// by it: the key of a mapping's value, an item itself. Both are nil if there is
// none.
func child(n *yaml.Node, step string) (at, value *yaml.Node) {
	if digits, ok := strings.CutPrefix(step, "["); ok {
		index, err := strconv.Atoi(strings.TrimSuffix(digits, "]"))
		if err != nil || n.Kind != yaml.SequenceNode || index >= len(n.Content) {
			return nil, nil
		}
		return n.Content[index], n.Content[index]
	}
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := resolve(n.Content[i]); key.Value == step {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}
