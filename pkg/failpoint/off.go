//go:build !failpoints

package failpoint

// Enabled says whether this program was built with the tag failpoints.
const Enabled = false

// Hit does nothing in programs without the tag failpoints.
func Hit(Point) error { return nil }
