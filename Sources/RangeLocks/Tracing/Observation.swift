// SPDX-License-Identifier: Apache-2.0
//
// What a lock that is observed does beside locking: it calls a hook.
//
// Guarantee: nothing of this is touched, and no instruction spent, while nobody observes; a hook may be put in, changed
// and taken out at any time.
// Mechanism: the state "observed" of the lock's word (`WholeWord`) stands for "directory", but no fast path takes it for
// that: requests and releases come to the general ways, which look here.
// Cost: off, nothing. On, every request goes the general way, and an event costs a latch and the call.
// Lock order inside: the mode latch before the latch of the hook; that one is a leaf.

import CRangeland
import Synchronization

/// What can be switched on, as bits.
struct ObservationKinds: OptionSet, Sendable {
  let rawValue: UInt32

  /// A hook is told what happens.
  static let tracing = ObservationKinds(rawValue: 1)
  /// Grants are counted.
  static let acquisitions = ObservationKinds(rawValue: 2)
  /// Requests note when they began to wait or to hold.
  static let times = ObservationKinds(rawValue: 4)
}

/// Keeps a hook alive.
final class TraceHook: Sendable {
  let body: @Sendable (RangeLock.TraceEvent) -> Void

  init(_ body: @escaping @Sendable (RangeLock.TraceEvent) -> Void) { self.body = body }
}

/// The handle of one block of a lock's mapping. Zeroed memory observes nothing.
struct Observation {
  let raw: UnsafeMutableRawPointer

  /// What is switched on. Changed under the mode latch.
  @inline(__always)
  private var word: UnsafeMutablePointer<Atomic<UInt32>> {
    raw.assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  /// Protects `hook`.
  @inline(__always)
  private var latch: UnsafeMutablePointer<Latch> {
    (raw + 32).assumingMemoryBound(to: Latch.self)
  }

  /// A retained `TraceHook`, or nil.
  @inline(__always)
  private var hook: UnsafeMutablePointer<UnsafeMutableRawPointer?> {
    (raw + 64).assumingMemoryBound(to: UnsafeMutableRawPointer?.self)
  }

  var kinds: ObservationKinds {
    get { ObservationKinds(rawValue: word.pointee.load(ordering: .relaxed)) }
    nonmutating set { word.pointee.store(newValue.rawValue, ordering: .relaxed) }
  }

  /// Puts a hook in the place of the one that is there.
  func replaceHook(_ new: TraceHook?) {
    let retained = new.map { Unmanaged.passRetained($0).toOpaque() }
    latch.pointee.lock()
    let old = hook.pointee
    hook.pointee = retained
    latch.pointee.unlock()
    // After the latch: what the old hook owns may end here.
    if let old { Unmanaged<TraceHook>.fromOpaque(old).release() }
  }

  /// Calls the hook if there is one. No latch is held meanwhile.
  @inline(never)
  func tell(_ event: RangeLock.TraceEvent) {
    if !kinds.contains(.tracing) { return }
    latch.pointee.lock()
    // Retained before the latch is free: the hook may be taken out while it runs.
    let hook = hook.pointee.map { Unmanaged<TraceHook>.fromOpaque($0).takeUnretainedValue() }
    latch.pointee.unlock()
    hook?.body(event)
  }
}
