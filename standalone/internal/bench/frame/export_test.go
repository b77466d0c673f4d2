package frame

// AcceptKey is what a server has to answer to the handshake.
func AcceptKey() string { return acceptKey() }
