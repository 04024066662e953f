// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RangelandReplay

/// perf's lines about `mmap_lock` and the scheduler.
@Suite struct ImportWaitsTests {
  /// Two threads: 100 waits for the lock that 101 holds, and a fork's other space.
  private static let text = """
      app   100/100   [001]    10.000000450:  sched:sched_process_exec: filename=/bin/app pid=100 old_pid=100
      app   100/100   [001]    10.000000460:  mmap_lock:mmap_lock_start_locking: mm=0xffff888102762580 memcg_id=17251 write=true
      app   100/100   [001]    10.000000500:            syscalls:sys_exit_execve: 0x0
      app   100/100   [001]    10.000001000: PERF_RECORD_FORK(100:101):(100:100)
      app   100/101   [000]    10.000002000:     mmap_lock:mmap_lock_start_locking: mm=0xffff888102762580 memcg_path=/ write=true
      app   100/101   [000]    10.000002010:  mmap_lock:mmap_lock_acquire_returned: mm=0xffff888102762580 memcg_path=/ write=true success=true
      app   100/100   [001]    10.000003000:     mmap_lock:mmap_lock_start_locking: mm=0xffff888102762580 memcg_id=17251 write=false
      app   100/100   [001]    10.000003100:                   sched:sched_switch: prev_comm=my app prev_pid=100 prev_prio=120 prev_state=D ==> next_comm=swapper/1 next_pid=0 next_prio=120
      app   100/100   [001]    10.000003110: PERF_RECORD_SWITCH OUT        
      app   100/101   [000]    10.000004000:  mmap_lock:mmap_lock_acquire_returned: mm=0xffff888102762580 memcg_id=17251 write=false success=true
      app   100/101   [000]    10.000004500:                   sched:sched_wakeup: comm=my app pid=100 prio=120 target_cpu=001
      app   100/101   [000]    10.000004510:                   sched:sched_wakeup: comm=my app pid=100 prio=120 target_cpu=001
      app   100/100   [001]    10.000004900: PERF_RECORD_SWITCH IN         
      app   100/100   [001]    10.000005000:  mmap_lock:mmap_lock_acquire_returned: mm=0xffff888102762580 memcg_id=17251 write=false success=true
      app   100/101   [000]    10.000006000:         mmap_lock:mmap_lock_released: mm=0xffff888102762580 memcg_id=17251 write=false
      app   100/101   [000]    10.000006100: PERF_RECORD_SWITCH OUT preempt
    other   200/200   [000]    10.000006200:                   sched:sched_switch: prev_comm=other prev_pid=200 prev_prio=120 prev_state=S ==> next_comm=app next_pid=101 next_prio=120
      app   100/100   [001]    10.000007000:         mmap_lock:mmap_lock_released: mm=0xffff888102762580 memcg_id=17251 write=false
      app   100/101   [000]    10.000008000:     mmap_lock:mmap_lock_start_locking: mm=0xffff888109999999 memcg_id=17251 write=true
      app   100/101   [000]    10.000008010:  mmap_lock:mmap_lock_acquire_returned: mm=0xffff888109999999 memcg_id=17251 write=true success=true
      app   100/101   [000]    10.000008020:         mmap_lock:mmap_lock_released: mm=0xffff888109999999 memcg_id=17251 write=true
      app   100/101   [000]    10.000009000:     mmap_lock:mmap_lock_start_locking: mm=0xffff888102762580 memcg_id=17251 write=false
      app   100/101   [000]    10.000009001:  mmap_lock:mmap_lock_acquire_returned: mm=0xffff888102762580 memcg_id=17251 write=false success=false
      app   100/101   [000]    10.000009100:     mmap_lock:mmap_lock_start_locking: mm=0xffff888102762580 memcg_id=17251 write=true
      app   100/101   [000]    10.000009200:  mmap_lock:mmap_lock_acquire_returned: mm=0xffff888102762580 memcg_id=17251 write=true success=true
      app   100/100   [001]    10.000009500:          exceptions:page_fault_user: address=0x7f0000001008 ip=0x401000 error_code=0x4

    """

  private func imported(_ text: String) throws -> Recording {
    try Recording.importText(bytes: Array(text.utf8), name: "perf.txt").recording
  }

  @Test func `acquisitions are put together from their lines`() throws {
    let recording = try imported(Self.text)
    #expect(recording.threads.map(\.beginning.id) == [100, 101])
    #expect(
      recording.acquisitions == [
        RecordedAcquisition(
          thread: 1, time: 1500, waited: 10, held: 3990, isWrite: true, downgradedAfter: 1990),
        RecordedAcquisition(thread: 0, time: 2500, waited: 2000, held: 2000, isWrite: false),
        RecordedAcquisition(
          thread: 1, time: 8500, waited: 1, held: nil, isWrite: false, isGranted: false),
        RecordedAcquisition(thread: 1, time: 8600, waited: 100, held: nil, isWrite: true),
      ])
    #expect(recording.info.eventClasses.isSuperset(of: [.acquisitions, .switches, .wakeUps]))
    let omissions = Dictionary(
      uniqueKeysWithValues: recording.info.omissions.map { ($0.name, $0.count) })
    #expect(omissions["acquisitions of other spaces' locks"] == 1)
    #expect(omissions["waits and switches while the program was loaded"] == 1)
  }

  @Test func `a switch is told once, by whichever line comes first`() throws {
    let recording = try imported(Self.text)
    #expect(
      recording.scheduling == [
        RecordedScheduling(thread: 0, time: 2600, .switchedOut(.uninterruptible)),
        RecordedScheduling(thread: 0, time: 4000, .woken(by: 1)),
        RecordedScheduling(thread: 0, time: 4400, .switchedIn(processor: 1)),
        RecordedScheduling(thread: 1, time: 5600, .switchedOut(.preempted)),
        RecordedScheduling(thread: 1, time: 5700, .switchedIn(processor: 0)),
      ])
    // What the importer makes can be written and read.
    let folder = try TemporaryFolder()
    try recording.write(to: folder.path + "/r")
    let isSame = try Recording(path: folder.path + "/r") == recording
    #expect(isSame)
  }

  @Test func `what was lost is counted, not guessed`() throws {
    let lock = "mm=0xffff888102762580 memcg_id=1 write=true"
    let recording = try imported(
      """
      a 5/5 [000] 1.000001: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4
      a 5/5 [000] 1.000002: mmap_lock:mmap_lock_released: \(lock)
      a 5/5 [000] 1.000003: mmap_lock:mmap_lock_start_locking: \(lock)
      a 5/5 [000] 1.000004: mmap_lock:mmap_lock_start_locking: \(lock)
      a 5/5 [000] 1.000005: mmap_lock:mmap_lock_acquire_returned: \(lock) success=true
      a 5/5 [000] 1.000006: mmap_lock:mmap_lock_start_locking: \(lock)

      """)
    #expect(recording.acquisitions.isEmpty)
    #expect(
      recording.info.omissions.map { "\($0.count) \($0.name)" } == [
        "1 acquisitions of mmap_lock whose release is missing",
        "1 releases of mmap_lock whose acquisition is missing", "2 waits without an end",
      ])
  }

  static let malformed = [
    "mmap_lock:mmap_lock_start_locking: mm=0x1 memcg_id=1 write=maybe",
    "mmap_lock:mmap_lock_start_locking: memcg_id=1 write=true",
    "mmap_lock:mmap_lock_acquire_returned: mm=0x1 memcg_id=1 write=true",
    "mmap_lock:mmap_lock_released: mm=0x1 memcg_id=1 wri", "PERF_RECORD_SWITCH SIDEWAYS",
    "sched:sched_switch: prev_comm=a prev_pid=5 prev_prio=120 prev_state=S ==> next_comm=b",
    "sched:sched_switch: prev_comm=a", "sched:sched_wakeup: comm=a",
    "sched:sched_wakeup: comm=a pid=x",
  ]

  @Test(arguments: malformed)
  func `a malformed line is named with what was expected`(_ line: String) throws {
    let good =
      "a 5/5 [000] 1.000001: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4"
    let error = #expect(throws: RecordingError.self) {
      try imported("\(good)\na 5/5 [000] 1.000002: \(line)\n")
    }
    #expect(error?.kind == .malformedLine && error?.place == .line(2))
    #expect(error?.advice.hasPrefix("expected `") == true)
  }

  @Test func `any damage to text is an error or a consistent recording`() {
    damage("damaged waits", Self.text)
  }
}

/// Imports `text` with random bytes changed or gone: an error or a consistent recording comes of it, and no trap.
func damage(_ name: String, _ text: String) {
  var random = SeededGenerator(name)
  let bytes = Array(text.utf8)
  for _ in 0..<1_500 {
    var changed = bytes
    for _ in 0..<Int.random(in: 1...3, using: &random) {
      let index = Int.random(in: 0..<changed.count, using: &random)
      switch Int.random(in: 0..<4, using: &random) {
      case 0: changed[index] = UInt8.random(in: 0...255, using: &random)
      case 1: changed.remove(at: index)
      case 2: changed.removeSubrange(index...)
      default: changed[index] = UInt8.random(in: 0x30..<0x3a, using: &random)
      }
      if changed.isEmpty { break }
    }
    do throws(RecordingError) {
      let (recording, _) = try Recording.importText(bytes: changed, name: "t")
      _ = RecordingSummary(recording)
    } catch {
      #expect(!error.reason.isEmpty && !error.advice.isEmpty)
    }
  }
}
