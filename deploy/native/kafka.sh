# Apache Kafka, the real broker, as one node in KRaft mode; its jars are those of Maven Central.
# shellcheck shell=bash disable=SC2154 # what common.sh sets

kafka_version=4.1.1
kafka_port=$(port LINKER_NATIVE_KAFKA_PORT 9092) || exit
kafka_controller_port=$(port LINKER_NATIVE_KAFKA_CONTROLLER_PORT 9093) || exit
kafka_jars=$dir/kafka-$kafka_version

kafka_processes() { echo kafka; }
kafka_installed() { [ -d "$kafka_jars" ] && command -v java >/dev/null; }

kafka_install() {
	local packages=() new=$kafka_jars.new
	command -v java >/dev/null || packages+=(default-jre-headless)
	[ -d "$kafka_jars" ] || command -v mvn >/dev/null || packages+=(maven)
	apt_install "${packages[@]}"
	local java
	java=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
	((${java:-0} >= 17)) || die "Kafka needs Java 17 or later, $(command -v java) is ${java:-unknown}: install openjdk-17-jre-headless, or put it first on PATH"
	[ ! -d "$kafka_jars" ] || return 0
	rm -rf "$new"
	mkdir "$new"
	sed "s/VERSION/$kafka_version/" "$here/kafka.xml" >"$new/pom.xml"
	logged "fetch Kafka $kafka_version by Maven" mvn -q -B -f "$new/pom.xml" \
		org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory="$new"
	mv "$new" "$kafka_jars"
}

kafka_start() {
	need_port "$kafka_port" LINKER_NATIVE_KAFKA_PORT
	need_port "$kafka_controller_port" LINKER_NATIVE_KAFKA_CONTROLLER_PORT
	local settings=$dir/kafka.properties
	mkdir -p "$dir/data"
	kafka_settings >"$settings"
	if [ ! -e "$dir/data/kafka/meta.properties" ]; then
		logged "format the log directory of Kafka" java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$kafka_jars/*" \
			kafka.tools.StorageTool format --ignore-formatted -t AAAAAAAAAAAAAAAAAAAAAA -c "$settings"
	fi
	spawn kafka java -Xmx512m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$kafka_jars/*" kafka.Kafka "$settings"
	await kafka 60 listening "$kafka_port" # it listens when the broker may be used
}

# One broker, so one replica; few threads, for it shares the machine with what it serves; groups that
# form without waiting; a broker that notices within 2 s that it is alone.
kafka_settings() {
	cat <<-END
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$kafka_controller_port
		listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$kafka_controller_port
		advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_port
		controller.listener.names=CONTROLLER
		listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
		inter.broker.listener.name=PLAINTEXT
		log.dirs=$dir/data/kafka
		num.network.threads=1
		num.io.threads=2
		auto.create.topics.enable=false
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=4
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=1
		group.initial.rebalance.delay.ms=0
		group.min.session.timeout.ms=1000
		broker.session.timeout.ms=2000
		broker.heartbeat.interval.ms=500
		log.cleaner.dedupe.buffer.size=4194304
		log.cleaner.threads=1
	END
}

kafka_env() { echo "export KAFKA_HOSTS='127.0.0.1:$kafka_port'"; }
