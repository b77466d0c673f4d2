// Package child says how programs of this repository start others that are to end with
// them.
package child
