package trace

// AppendQuestion encodes a question, for tests that put it as others might.
func AppendQuestion(q Question) []byte { return appendQuestion(nil, &q) }
