package e2e

var program = struct{ dir string }{}
