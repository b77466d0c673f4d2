// Package e2e holds the end-to-end tests of one domain: they start the whole
// system, embedded brokers and all, and look at it from outside, over its ports,
// as clients, operators and hostile peers do. They know the protocol and nothing
// of what is inside.
package e2e
