package local

import "time"

func (c *call) record(err error) error { return nil }

func (k *Keystore) recordService(now time.Time, done []serviceEvent) error { return nil }
