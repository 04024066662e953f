// SPDX-License-Identifier: Apache-2.0
//
// Where requests meet the checks. In builds that do not check each function is empty and inlined away.
//
// A request is noted three times: its order before it asks (`checkOrder`), its wait when it is in the queue
// (`noteWait`), its hold when it is granted (`noteHold`). Notes of a hold end before the hold does, so that what is noted as
// held is held.

#if RANGELOCKS_CHECKED
  extension Directory {
    /// The general way for a request that waits until its deadline.
    @usableFromInline @inline(never)
    func acquire(
      _ range: KeyRange, _ mode: LockMode, deadline: UInt64, _ site: CallSite
    ) -> EntryRef? {
      acquireGenerally(range, mode, deadline: deadline, site)
    }

    /// A request that waits without a deadline is about to be made: reports an order that contradicts an earlier one.
    @usableFromInline
    func checkOrder(_ range: KeyRange, _ mode: LockMode, _ site: CallSite) {
      let lockClass = header.pointee.lockClass
      if lockClass == 0 { return }
      LockOrderGraph.shared.check(lockClass, raw, range, site, RequestTable.shared.holdsOfCaller())
    }

    /// The same for several ranges, each against what was held before.
    func checkOrder(_ pieces: UnsafeBufferPointer<RangeRequest>, _ site: CallSite) {
      let lockClass = header.pointee.lockClass
      if lockClass == 0 { return }
      let held = RequestTable.shared.holdsOfCaller()
      for piece in pieces {
        LockOrderGraph.shared.check(lockClass, raw, piece.range, site, held)
      }
    }

    /// A request was granted to the caller.
    @usableFromInline
    func noteHold(_ entry: EntryRef, _ site: CallSite) -> HoldNote {
      let piece = RangeRequest(entry.range, entry.pointer.pointee.mode)
      return HoldNote(record: RequestTable.shared.insertHold(template(piece, site)))
    }

    @usableFromInline
    func noteHold(_ group: EntryGroup, _ site: CallSite) -> HoldNote {
      var head: UnsafeMutablePointer<RequestRecord>?
      group.visitAll { entry in
        var record = template(RangeRequest(entry.range, entry.pointer.pointee.mode), site)
        record.sibling = head
        head = RequestTable.shared.insertHold(record)
      }
      return HoldNote(record: head)
    }

    /// The caller's request is in the queue: reports if it would wait for itself.
    func noteWait(_ entry: EntryRef, _ site: CallSite, canGiveUp: Bool) -> WaitNote {
      WaitNote(record: RequestTable.shared.insertWait([waiting(entry, site, canGiveUp)]))
    }

    func noteWait(_ group: EntryGroup, _ site: CallSite, canGiveUp: Bool) -> WaitNote {
      var records: [RequestRecord] = []
      group.visitAll { records.append(waiting($0, site, canGiveUp)) }
      return WaitNote(record: RequestTable.shared.insertWait(records))
    }

    /// The hold that `note` is about waits to become a writer.
    func noteUpgrade(
      _ entry: EntryRef, of note: HoldNote, _ site: CallSite, canGiveUp: Bool
    ) -> WaitNote {
      // Others wait for a writer from now on.
      note.change(entry.range, .write)
      var record = template(RangeRequest(entry.range, .write), site)
      record.state = .upgrading
      record.canGiveUp = canGiveUp
      record.upgraded = note.record
      return WaitNote(record: RequestTable.shared.insertWait([record]))
    }

    private func waiting(_ entry: EntryRef, _ site: CallSite, _ canGiveUp: Bool) -> RequestRecord {
      var record = template(RangeRequest(entry.range, entry.pointer.pointee.mode), site)
      record.state = .waiting
      // Ours: nobody else changes or ends it before we have gone on.
      record.stamp = entry.stamp
      record.canGiveUp = canGiveUp
      return record
    }

    private func template(_ piece: RangeRequest, _ site: CallSite) -> RequestRecord {
      RequestRecord(
        owner: RequestOwner.current, lock: raw, lockClass: header.pointee.lockClass, piece: piece,
        site: site)
    }
  }
#else
  extension Directory {
    @inlinable @inline(__always)
    func acquire(
      _ range: KeyRange, _ mode: LockMode, deadline: UInt64, _ site: CallSite
    ) -> EntryRef? {
      acquire(range, mode, deadline: deadline)
    }

    /// Without the empty argument: the compiler would drop it behind a second symbol that jumps.
    @usableFromInline @inline(never)
    func acquire(_ range: KeyRange, _ mode: LockMode, deadline: UInt64) -> EntryRef? {
      acquireGenerally(range, mode, deadline: deadline, CallSite())
    }

    @inlinable @inline(__always)
    func checkOrder(_ range: KeyRange, _ mode: LockMode, _ site: CallSite) {}

    @inline(__always)
    func checkOrder(_ pieces: UnsafeBufferPointer<RangeRequest>, _ site: CallSite) {}

    @inlinable @inline(__always)
    func noteHold(_ entry: EntryRef, _ site: CallSite) -> HoldNote { HoldNote() }

    @inlinable @inline(__always)
    func noteHold(_ group: EntryGroup, _ site: CallSite) -> HoldNote { HoldNote() }

    @inline(__always)
    func noteWait(_ entry: EntryRef, _ site: CallSite, canGiveUp: Bool) -> WaitNote { WaitNote() }

    @inline(__always)
    func noteWait(_ group: EntryGroup, _ site: CallSite, canGiveUp: Bool) -> WaitNote { WaitNote() }

    @inline(__always)
    func noteUpgrade(
      _ entry: EntryRef, of note: HoldNote, _ site: CallSite, canGiveUp: Bool
    ) -> WaitNote { WaitNote() }
  }
#endif
