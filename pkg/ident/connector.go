package ident

import "encoding/hex"

// Incarnation is drawn at random each time a connector starts: two processes
// with one name, or one process and its successor, are never mistaken for each
// other.
type Incarnation [16]byte

// String is the hexadecimal form, fit for subjects and keys.
func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// Connector is one running connector.
type Connector struct {
	Name        string
	Incarnation Incarnation
}
