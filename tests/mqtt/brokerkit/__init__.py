"""Real MQTT brokers for tests: Mosquitto from the system, amqtt from PyPI; started on a free loopback port."""
