// SPDX-License-Identifier: Apache-2.0
//
// What the explored copy of the lock calls in the place of CRangeland and of the standard library's traps.
//
// Declarations of the module hide imported ones of the same name (see Atomic.swift).
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import CExplorer

@usableFromInline
func rl_futex_wait(_ word: UnsafeMutablePointer<UInt32>, _ expected: UInt32, _ deadline: UInt64)
  -> Int32
{
  rx_futex_wait(word, expected, deadline)
}

@usableFromInline
func rl_futex_wake(_ word: UnsafeMutablePointer<UInt32>, _ count: Int32) -> Int32 {
  rx_futex_wake(word, count)
}

@usableFromInline
func rl_cpu_relax() { rx_relax() }

@usableFromInline
func rl_yield() { rx_yield() }

@usableFromInline
func rl_monotonic_ns() -> UInt64 { rx_monotonic_ns() }

@usableFromInline
func rl_cycles() -> UInt64 { 0 }

@usableFromInline
func rl_gettid() -> Int32 { 1000 + Int32(rx_thread()) }

@usableFromInline
var RL_MAX_THREADS: UInt32 { RX_THREADS }

@usableFromInline
func rl_thread_index() -> UInt32 { rx_thread() }

@usableFromInline
func rl_thread_index_bound() -> UInt32 { RX_THREADS }

@usableFromInline
func rl_tls_get(_ word: UInt32) -> UInt64 { rx_tls(word).pointee }

@usableFromInline
func rl_tls_set(_ word: UInt32, _ value: UInt64) { rx_tls(word).pointee = value }

@usableFromInline
func rl_reserve(_ bytes: Int) -> UnsafeMutableRawPointer? { rx_reserve(bytes) }

/// The arena forgets as a whole.
@usableFromInline
func rl_release(_ start: UnsafeMutableRawPointer?, _ bytes: Int) -> Int32 { 0 }

/// A broken precondition ends the execution, not the process.
@usableFromInline
func precondition(
  _ condition: @autoclosure () -> Bool, _ message: @autoclosure () -> String = "precondition"
) {
  if !condition() { rx_fail("precondition: \(message())") }
}

@usableFromInline
func preconditionFailure(_ message: @autoclosure () -> String = "precondition") -> Never {
  rx_fail("precondition: \(message())")
}

@usableFromInline
func fatalError(_ message: @autoclosure () -> String = "fatal error") -> Never {
  rx_fail("fatal error: \(message())")
}

/// The thread that rings alarms: a step of a program rings them.
func rl_start_thread(
  _ body: @convention(c) (UnsafeMutableRawPointer?) -> Void, _ context: UnsafeMutableRawPointer?
) -> Int32 { 0 }

// MARK: - Mistakes

/// A mistake that can be switched on in the explored copy.
public struct PlantedMistake: Sendable {
  /// What `activeMistake` is set to.
  public let id: Int
  /// What it is called in the list.
  public let name: String
  /// What is wrong, and where such a mistake was seen.
  public let story: String
  /// The exploration that finds it: preemptions, memory model, what is explored, the program.
  public let preemptions: Int
  public let model: String
  public let subject: String
  public let program: String
}

/// The mistake that is on, 0 = none. Explorations run one at a time.
public nonisolated(unsafe) var activeMistake = 0

@usableFromInline
func isPlanted(_ mistake: Int) -> Bool { activeMistake == mistake }

// MARK: - Inspection

/// What the programs want to know of a lock and of its pool when nobody uses them.
public enum Inspection {
  /// The event that a request is in the queue.
  public static var queuedEvent: UInt32 { 1 }

  /// Puts the pool of the process into the arena, for good. Before the first exploration.
  public static func makePool() {
    _ = NodePool.shared.blocksInUse
    _ = AlarmClock.shared.ring(upTo: 0)
    rx_arena_keep()
  }

  /// Fills the block list of a thread, as if it had used a lock before.
  public static func warmPool(_ thread: UInt32) {
    rx_set_thread(thread)
    if let block = NodePool.shared.take() { NodePool.shared.give(block) }
    rx_set_thread(0)
  }

  /// Blocks of requests and edges that are in no free list.
  public static var blocksInUse: Int { NodePool.shared.blocksInUse }

  /// Whether nothing of any request is left in the lock.
  public static func isEmpty(_ lock: RangeLock) -> Bool { lock.directory.isUnused }

  /// Enters whole-lock mode if nobody is in the directory.
  public static func enterWhole(_ lock: RangeLock) { _ = lock.directory.enterWhole() }

  /// `RangeLock.lock(overAll:)` without its array, which would be allocated; the ranges are in order and disjoint.
  public static func lockGroup(
    _ lock: RangeLock, _ pieces: UnsafeBufferPointer<RangeRequest>, deadline: UInt64
  ) -> UnsafeMutableRawPointer? {
    lock.directory.acquireGroup(pieces, deadline: deadline, CallSite())?.raw
  }

  public static func tryGroup(
    _ lock: RangeLock, _ pieces: UnsafeBufferPointer<RangeRequest>
  ) -> UnsafeMutableRawPointer? { lock.directory.tryAcquireGroup(pieces)?.raw }

  public static func releaseGroup(_ lock: RangeLock, _ group: UnsafeMutableRawPointer) {
    // Its only property; `init` would empty the group.
    lock.directory.release(unsafeBitCast(group, to: EntryGroup.self))
  }

  /// Lets the thread's next request in a directory be one that samples (`Directory.sample`).
  public static func makeSampleDue(_ thread: UInt32) {
    let cache = NodePool.shared.cache(thread)
    let few = cache.pointee.counts & 0xFFFF_FFFF
    cache.pointee.counts = few | UInt64(ModeSwitch.sampleInterval - 1) << 32
  }

  /// Switches everything on, or off, that makes a lock an observed one; there is no hook.
  public static func observe(_ lock: RangeLock, _ isOn: Bool) {
    lock.directory.observe([.tracing, .acquisitions, .times], isOn)
  }

  /// Whether the lock's word says "observed" exactly if something is switched on.
  public static func isObservedAsSwitched(_ lock: RangeLock) -> Bool {
    lock.directory.isObserved == !lock.directory.observation.kinds.isEmpty
  }

  /// The semaphore's word: holders and flags.
  public static func word(_ semaphore: UnsafeMutablePointer<ReadWriteSemaphore>) -> UInt32 {
    semaphore.pointee.word.load(ordering: .relaxed)
  }
}

/// Woven into `Directory.wait`: the request is published and has to wait.
func wasQueued() { rx_event(Inspection.queuedEvent) }

/// Woven into `NodePool.give`: all but the list's word and the stack of dependents, which is empty in free blocks.
@usableFromInline
func poison(_ block: UnsafeMutableRawPointer) {
  let byte: UInt8 = 0xA5
  (block + 8).initializeMemory(as: UInt8.self, repeating: byte, count: 56)
  (block + 72).initializeMemory(as: UInt8.self, repeating: byte, count: 56)
}
