// Package e2e holds the end-to-end tests of a domain and of networks of
// domains: they start the whole system and look at it from outside, over its ports, as clients, operators and
// hostile peers do. They know the protocol and nothing of what is inside.
//
// The system is one process with embedded brokers. Where KAFKA_HOSTS, NATS_URL,
// REDIS_URL and MONGODB_URI name servers, it is a meta server, two connectors and
// two processors, the real programs, on those; and there are tests which break
// all of that under load. With LINKER_NATIVE=1 they break the servers as well, by
// deploy/native/services. LINKER_TEST_LOGS names a directory that keeps the logs
// of the processes; LINKER_TEST_CHAOS says how long everything breaks at random,
// and LINKER_TEST_SEED which choices are made there.
//
// Networks always run in one process, with proxies on the links between domains, or,
// where LINKER_TEST_CHAOS is set, as the real program, which is killed as well.
package e2e
