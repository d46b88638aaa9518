"""MQTT for tests: brokers, certificates, a raw client, a registry beside a broker, and kills at random."""
