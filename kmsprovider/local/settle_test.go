package local

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

func TestAKeyIsDeletedWhenItsWindowIsOver(t *testing.T) {
	s := newStore(t)
	arn, kept := s.key(), s.key()
	for _, alias := range []string{"alias/a", "alias/b"} {
		must[struct{}](s, &CreateAliasInput{AliasName: alias, TargetKeyID: arn})
	}
	wrapped := s.encrypt(arn, "text", nil)
	out := must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: arn, PendingWindowInDays: number(7)})
	if want := s.clock.now().AddDate(0, 0, 7); !out.DeletionDate.Equal(want) || out.KeyState != kmsprovider.StatePendingDeletion || out.PendingWindowInDays != 7 || out.KeyID != arn {
		t.Errorf("scheduled: %+v", out)
	}
	if m := s.describe(arn); m.Enabled || !m.DeletionDate.Equal(out.DeletionDate.Time) {
		t.Errorf("pending: %+v", m)
	}
	s.clock.pass(7*24*time.Hour - time.Microsecond)
	wantCode(t, "the moment before", s.opens(wrapped, "text", nil), codeInvalidState)
	s.clock.pass(time.Microsecond)
	wantCode(t, "decrypt", s.opens(wrapped, "text", nil), codeInvalidCiphertext)
	for _, name := range []string{arn, "alias/a", "alias/b"} {
		wantCode(t, name, s.try(&DescribeKeyInput{KeyID: name}), codeNotFound)
	}
	wantCode(t, "cancel", s.try(&CancelKeyDeletionInput{KeyID: arn}), codeNotFound)
	d := s.state.doc
	if len(d.Keys) != 1 || len(d.Aliases) != 0 || keyARN(d.Account, d.Keys[0].ID) != kept {
		t.Errorf("in the file: %d keys, %d aliases", len(d.Keys), len(d.Aliases))
	}
}

func TestTheWindowOfADeletionIsSevenToThirtyDays(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	for _, days := range []int{-1, 0, 6, 31} {
		wantCode(t, "days", s.try(&ScheduleKeyDeletionInput{KeyID: arn, PendingWindowInDays: number(days)}), codeValidation)
	}
	out := must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: arn})
	if out.PendingWindowInDays != 30 || !out.DeletionDate.Equal(s.clock.now().AddDate(0, 0, 30)) {
		t.Errorf("%+v", out)
	}
	if got := must[CancelKeyDeletionOutput](s, &CancelKeyDeletionInput{KeyID: arn}); got.KeyID != arn {
		t.Errorf("%+v", got)
	}
	if m := s.describe(arn); m.KeyState != kmsprovider.StateDisabled || m.DeletionDate != nil {
		t.Errorf("cancelled: %+v", m)
	}
	s.clock.passDays(60)
	if m := s.describe(arn); m.KeyState != kmsprovider.StateDisabled {
		t.Errorf("long after: %+v", m)
	}
}

func TestADeletedKeyIsGoneAlsoWhereTheFileCannotBeWritten(t *testing.T) {
	s := newStore(t)
	arn, imported, rotated := s.key(), s.external(), s.key()
	in := s.prepareImport(imported, testMaterial(7))
	in.ExpirationModel, in.ValidTo = materialExpires, timestamp(s.clock.now().Add(time.Hour))
	must[ImportKeyMaterialOutput](s, in)
	must[struct{}](s, &EnableKeyRotationInput{KeyID: rotated, RotationPeriodInDays: number(90)})
	must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: arn})
	block := filepath.Join(s.Path()+".tmp", "entry") // see TestAReplaceThatFailsLeavesTheOldKeystore
	if err := os.MkdirAll(block, 0o700); err != nil {
		t.Fatal(err)
	}
	s.clock.passDays(100)
	wantCode(t, "deleted", s.try(&DescribeKeyInput{KeyID: arn}), codeNotFound)
	wantCode(t, "expired", s.try(&EncryptInput{KeyID: imported, Plaintext: []byte("x")}), codeInvalidState)
	first := s.describe(rotated).CurrentKeyMaterialID
	if err := s.opens(s.encrypt(rotated, "text", nil), "text", nil); err != nil {
		t.Errorf("a key whose rotation has to wait: %v", err)
	}
	if len(must[ListKeysOutput](s, &ListKeysInput{}).Keys) != 2 || len(s.state.doc.Keys) != 3 {
		t.Error("the deleted key is listed, or was deleted after all")
	}
	if err := os.RemoveAll(s.Path() + ".tmp"); err != nil {
		t.Fatal(err)
	}
	if s.describe(rotated).CurrentKeyMaterialID != first {
		t.Error("tried again at once")
	}
	s.clock.pass(settleRetry)
	if s.describe(rotated).CurrentKeyMaterialID == first || len(s.state.doc.Keys) != 2 {
		t.Error("not made up for")
	}
}

func TestAKeyRotatesWhenItIsDueAndNotBefore(t *testing.T) {
	s := newStore(t)
	other := s.another()
	arn := s.key()
	for _, days := range []int{0, 89, 2561} {
		wantCode(t, "days", s.try(&EnableKeyRotationInput{KeyID: arn, RotationPeriodInDays: number(days)}), codeValidation)
	}
	must[struct{}](s, &EnableKeyRotationInput{KeyID: arn, RotationPeriodInDays: number(90)})
	status := func() *GetKeyRotationStatusOutput {
		t.Helper()
		return must[GetKeyRotationStatusOutput](s, &GetKeyRotationStatusInput{KeyID: arn})
	}
	start := s.clock.now()
	if st := status(); !st.KeyRotationEnabled || st.RotationPeriodInDays != 90 || !st.NextRotationDate.Equal(start.AddDate(0, 0, 90)) || st.KeyID != arn {
		t.Errorf("%+v", st)
	}
	wrapped := map[string][]byte{"first": s.encrypt(arn, "first", nil)}
	first := s.describe(arn).CurrentKeyMaterialID
	s.clock.pass(90*24*time.Hour - time.Microsecond)
	if s.describe(arn).CurrentKeyMaterialID != first {
		t.Error("rotated too early")
	}
	s.clock.passDays(1)
	now := s.clock.now()
	wrapped["second"] = other.encrypt(arn, "second", nil) // whoever comes first does it
	second := s.describe(arn).CurrentKeyMaterialID
	if second == first {
		t.Error("not rotated")
	}
	for text, b := range wrapped {
		if err := s.opens(b, text, nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if st := status(); !st.NextRotationDate.Equal(now.AddDate(0, 0, 90)) {
		t.Errorf("next: %+v", st)
	}
	list := must[ListKeyRotationsOutput](s, &ListKeyRotationsInput{KeyID: arn}).Rotations
	if len(list) != 1 || list[0].RotationType != "AUTOMATIC" || !list[0].RotationDate.Equal(now) || list[0].KeyMaterialID != second || list[0].KeyMaterialState != "CURRENT" {
		t.Errorf("rotations: %+v", list)
	}

	// Not while it is disabled, and then at once.
	must[struct{}](s, &DisableKeyInput{KeyID: arn})
	s.clock.passDays(200)
	if s.describe(arn).CurrentKeyMaterialID != second {
		t.Error("rotated while disabled")
	}
	must[struct{}](s, &EnableKeyInput{KeyID: arn})
	if s.describe(arn).CurrentKeyMaterialID == second {
		t.Error("not rotated when enabled again")
	}
	// One that is to be deleted says that it has no rotation, and keeps it.
	must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: arn})
	if st := status(); st.KeyRotationEnabled || st.NextRotationDate != nil {
		t.Errorf("pending deletion: %+v", st)
	}
	must[CancelKeyDeletionOutput](s, &CancelKeyDeletionInput{KeyID: arn})
	must[struct{}](s, &EnableKeyInput{KeyID: arn})
	if st := status(); !st.KeyRotationEnabled {
		t.Errorf("kept: %+v", st)
	}
	must[struct{}](s, &DisableKeyRotationInput{KeyID: arn})
	third := s.describe(arn).CurrentKeyMaterialID
	s.clock.passDays(1000)
	if st := status(); st.KeyRotationEnabled || s.describe(arn).CurrentKeyMaterialID != third {
		t.Errorf("switched off: %+v", st)
	}
}

func TestRotationOnDemandGivesNewMaterialUpTo25Times(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	must[struct{}](s, &EnableKeyRotationInput{KeyID: arn})
	next := must[GetKeyRotationStatusOutput](s, &GetKeyRotationStatusInput{KeyID: arn}).NextRotationDate
	var wrapped [][]byte
	materials := make(map[string]bool)
	for range maxOnDemand {
		wrapped = append(wrapped, s.encrypt(arn, "text", nil))
		materials[s.describe(arn).CurrentKeyMaterialID] = true
		if out := must[RotateKeyOnDemandOutput](s, &RotateKeyOnDemandInput{KeyID: arn}); out.KeyID != arn {
			t.Errorf("%+v", out)
		}
	}
	wantCode(t, "once more", s.try(&RotateKeyOnDemandInput{KeyID: arn}), codeLimit)
	wrapped = append(wrapped, s.encrypt(arn, "text", nil))
	materials[s.describe(arn).CurrentKeyMaterialID] = true
	if len(materials) != maxOnDemand+1 {
		t.Errorf("%d materials", len(materials))
	}
	for i, b := range wrapped {
		if err := s.opens(b, "text", nil); err != nil {
			t.Errorf("material %d: %v", i, err)
		}
	}
	list := must[ListKeyRotationsOutput](s, &ListKeyRotationsInput{KeyID: arn}).Rotations
	all := must[ListKeyRotationsOutput](s, &ListKeyRotationsInput{KeyID: arn, IncludeKeyMaterial: allMaterial}).Rotations
	if len(list) != maxOnDemand || len(all) != maxOnDemand+1 || list[0].RotationType != "ON_DEMAND" || all[0].RotationType != "" || all[0].RotationDate != nil {
		t.Errorf("%d rotations, %d materials: %+v", len(list), len(all), all[:2])
	}
	if now := must[GetKeyRotationStatusOutput](s, &GetKeyRotationStatusInput{KeyID: arn}).NextRotationDate; !now.Equal(next.Time) {
		t.Errorf("the automatic rotation moved from %v to %v", next, now)
	}
	// The automatic one is not counted among the 25.
	s.clock.passDays(365)
	if s.describe(arn).CurrentKeyMaterialID == list[maxOnDemand-1].KeyMaterialID {
		t.Error("not rotated automatically")
	}
}

func TestTheDefaultKeyRotatesEveryYear(t *testing.T) {
	s := newStore(t)
	arn, err := s.EnsureDefaultKey(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wrapped := s.encrypt(arn, "text", nil)
	seen := map[string]bool{s.describe(arn).CurrentKeyMaterialID: true}
	for year := range 3 {
		s.clock.passDays(364)
		if !seen[s.describe(arn).CurrentKeyMaterialID] {
			t.Errorf("year %d: rotated too early", year)
		}
		s.clock.passDays(1)
		if id := s.describe(arn).CurrentKeyMaterialID; seen[id] {
			t.Errorf("year %d: not rotated", year)
		} else {
			seen[id] = true
		}
	}
	if err := s.opens(wrapped, "text", nil); err != nil {
		t.Error(err)
	}
	if st := must[GetKeyRotationStatusOutput](s, &GetKeyRotationStatusInput{KeyID: arn}); !st.KeyRotationEnabled || st.RotationPeriodInDays != 365 {
		t.Errorf("%+v", st)
	}
}

func TestWhatIsDueIsDoneOnceByWhoeverComesFirst(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	must[struct{}](s, &EnableKeyRotationInput{KeyID: arn, RotationPeriodInDays: number(90)})
	stores := []*store{s, s.another(), s.another()}
	s.clock.passDays(90)
	done := make(chan error)
	for i := range 30 {
		go func() { done <- stores[i%3].opens(stores[i%3].encrypt(arn, "text", nil), "text", nil) }()
	}
	for range 30 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if list := must[ListKeyRotationsOutput](s, &ListKeyRotationsInput{KeyID: arn}).Rotations; len(list) != 1 {
		t.Errorf("%d rotations", len(list))
	}
}
