// SPDX-License-Identifier: Apache-2.0
//
// The lines of perf that tell of waits: `mmap_lock` and the scheduler.
//
// Source: the kernel's formats in `/sys/kernel/tracing/events/{mmap_lock,sched}`; perf 6.1's
// `perf_event__fprintf_switch`.

extension PerfTextParser {
  /// `start_locking`, `acquire_returned` or `released`, whose prefix has been read:
  /// `mm=0xADDRESS memcg_id=NUMBER write=BOOL [success=BOOL]` (`memcg_path=PATH` in older kernels).
  mutating func lock(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    let kind: TextEvent.Kind
    if cursor.skip("start_locking:") {
      kind = .lockStart
    } else if cursor.skip("acquire_returned:") {
      kind = .lockReturned
    } else if cursor.skip("released:") {
      kind = .lockReleased
    } else {
      skip("mmap_lock:mmap_lock_", cursor.string(cursor.token()))
      return
    }
    let expected = "`mm=0x... memcg_id=... write=true|false`"
    guard cursor.skip(past: " mm="), let space = cursor.hexadecimal(),
      let isWrite = Self.truth(past: " write=", &cursor)
    else { throw LineProblem(expected: expected) }
    var payload = isWrite ? TextEvent.lockOfWriter : 0
    if kind == .lockReturned {
      guard let isGranted = Self.truth(past: " success=", &cursor) else {
        throw LineProblem(expected: expected + " success=true|false`")
      }
      if isGranted { payload |= TextEvent.lockGranted }
    }
    add(kind, head, payload: payload, value: space)
    if kind != .lockReleased { chain.owner = text.events.count - 1 }
  }

  private static func truth(past prefix: StaticString, _ cursor: inout LineCursor) -> Bool? {
    guard cursor.skip(past: prefix) else { return nil }
    if cursor.skip("true") { return true }
    return cursor.skip("false") ? false : nil
  }

  /// `prev_comm=... prev_pid=N prev_prio=N prev_state=S ==> next_comm=... next_pid=N next_prio=N`.
  mutating func schedulerSwitch(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    let expected = "`prev_comm=... prev_pid=... prev_state=... ==> next_comm=... next_pid=...`"
    guard cursor.skip(past: " prev_pid="), let previous = cursor.identifier(),
      cursor.skip(past: " prev_state="), let state = cursor.peek,
      cursor.skip(past: " ==> next_comm="), cursor.skip(past: " next_pid="),
      let next = cursor.identifier(), previous >= 0, next >= 0
    else { throw LineProblem(expected: expected) }
    let reason: RecordedScheduling.Reason =
      switch state {
      case 0x52: .preempted
      case 0x53: .interruptible
      case 0x44: .uninterruptible
      default: .blocked
      }
    add(.switchedOut, head, payload: Int(reason.rawValue), value: UInt64(previous))
    add(.switchedIn, head, payload: head.processor, value: UInt64(next))
  }

  /// `comm=... pid=N prio=N target_cpu=N`.
  mutating func wakeUp(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    guard cursor.skip(past: " pid="), let thread = cursor.identifier(), thread > 0 else {
      throw LineProblem(expected: "`comm=... pid=NUMBER prio=... target_cpu=...`")
    }
    add(.woken, head, value: UInt64(thread))
  }

  /// perf's own record, whose name has been read: `IN`, `OUT` or `OUT preempt`.
  mutating func switchRecord(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    if cursor.skip("_CPU_WIDE") {}
    cursor.skipSpaces()
    let thread = UInt64(max(0, head.thread))
    if cursor.skip("IN") {
      add(.switchedIn, head, payload: head.processor, value: thread)
    } else if cursor.skip("OUT") {
      cursor.skipSpaces()
      let reason: RecordedScheduling.Reason = cursor.skip("preempt") ? .preempted : .blocked
      add(.switchedOut, head, payload: Int(reason.rawValue), value: thread)
    } else {
      throw LineProblem(expected: "`PERF_RECORD_SWITCH IN`, `OUT` or `OUT preempt`")
    }
  }
}
