// Go's paho over the URLs given: version 3.1.1 with paho.mqtt.golang, 5 with paho.golang; publishes at each QoS and gets it back.
//
//	paho-go CA_FILE CERT_FILE KEY_FILE URL...      an empty name is none
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand"
	"net/url"
	"os"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const patience = 10 * time.Second

var sizes = []int{5, 70_000, 1_000_000}

type arrival struct {
	qos  byte
	size int
}

func main() {
	config, err := trust(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fail(err)
	}
	for _, address := range os.Args[4:] {
		if err := version3(address, config); err != nil {
			fail(fmt.Errorf("%s, MQTT 3.1.1: %w", address, err))
		}
		fmt.Println("ok", address, "MQTT 3.1.1")
		if err := version5(address, config); err != nil {
			fail(fmt.Errorf("%s, MQTT 5: %w", address, err))
		}
		fmt.Println("ok", address, "MQTT 5")
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func trust(ca, cert, key string) (*tls.Config, error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	config := &tls.Config{RootCAs: pool}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// judge waits for one message of each QoS and no more.
func judge(arrivals <-chan arrival) error {
	seen := map[byte]bool{}
	for range sizes {
		select {
		case one := <-arrivals:
			if seen[one.qos] || one.size != sizes[one.qos] {
				return fmt.Errorf("QoS %d with %d bytes", one.qos, one.size)
			}
			seen[one.qos] = true
		case <-time.After(patience):
			return fmt.Errorf("only %v in %v", seen, patience)
		}
	}
	return nil
}

func version3(address string, config *tls.Config) error {
	options := mqtt.NewClientOptions().AddBroker(address).SetTLSConfig(config).SetAutoReconnect(false)
	options.SetClientID(fmt.Sprintf("go3-%d", rand.Int63())).SetConnectTimeout(patience).SetProtocolVersion(4)
	client := mqtt.NewClient(options)
	done := func(what string, token mqtt.Token) error {
		if !token.WaitTimeout(patience) {
			return fmt.Errorf("%s: not done in %v", what, patience)
		}
		return token.Error()
	}
	if err := done("connect", client.Connect()); err != nil {
		return err
	}
	defer client.Disconnect(250)
	topic := fmt.Sprintf("transport/go3/%d", rand.Int63())
	arrivals := make(chan arrival, 8)
	take := func(_ mqtt.Client, message mqtt.Message) { arrivals <- arrival{message.Qos(), len(message.Payload())} }
	if err := done("subscribe", client.Subscribe(topic, 2, take)); err != nil {
		return err
	}
	for qos, size := range sizes {
		if err := done("publish", client.Publish(topic, byte(qos), false, make([]byte, size))); err != nil {
			return err
		}
	}
	return judge(arrivals)
}

func version5(address string, config *tls.Config) error {
	server, err := url.Parse(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	arrivals := make(chan arrival, 8)
	manager, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		TlsCfg:                        config,
		KeepAlive:                     30,
		ConnectTimeout:                patience,
		CleanStartOnInitialConnection: true,
		ClientConfig: paho.ClientConfig{
			ClientID: fmt.Sprintf("go5-%d", rand.Int63()),
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(got paho.PublishReceived) (bool, error) {
					arrivals <- arrival{got.Packet.QoS, len(got.Packet.Payload)}
					return true, nil
				},
			},
		},
	})
	if err != nil {
		return err
	}
	if err := manager.AwaitConnection(ctx); err != nil {
		return err
	}
	topic := fmt.Sprintf("transport/go5/%d", rand.Int63())
	if _, err := manager.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 2}}}); err != nil {
		return err
	}
	for qos, size := range sizes {
		if _, err := manager.Publish(ctx, &paho.Publish{Topic: topic, QoS: byte(qos), Payload: make([]byte, size)}); err != nil {
			return err
		}
	}
	if err := judge(arrivals); err != nil {
		return err
	}
	return manager.Disconnect(ctx)
}
