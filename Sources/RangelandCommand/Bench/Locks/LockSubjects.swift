// SPDX-License-Identifier: Apache-2.0
//
// The locks that `bench locks` measures, behind one shape. Every loop is generic over it, so that none pays for a
// call through a table.

import Glibc
import RangeLocks

/// A lock under measurement. It lives as long as the benchmark.
protocol BenchLock: AnyObject, Sendable {
  /// As reports name it.
  static var name: String { get }
  /// Whether readers share, and whether disjoint ranges do.
  static var sharesReaders: Bool { get }
  static var knowsRanges: Bool { get }
  init()
  /// Runs `body` under the lock over `range`.
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void)
}

/// glibc's reader/writer lock, as `pthread_rwlock_init` makes it by default (readers preferred).
final class PthreadRWLock: BenchLock, @unchecked Sendable {
  static let name = "pthread_rwlock"
  static let sharesReaders = true
  static let knowsRanges = false
  private let lock: UnsafeMutablePointer<pthread_rwlock_t>

  init() {
    lock = .allocate(capacity: 1)
    pthread_rwlock_init(lock, nil)
  }

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    if mode == .write { pthread_rwlock_wrlock(lock) } else { pthread_rwlock_rdlock(lock) }
    body()
    pthread_rwlock_unlock(lock)
  }
}

/// glibc's mutex, of the default kind.
final class PthreadMutex: BenchLock, @unchecked Sendable {
  static let name = "pthread_mutex"
  static let sharesReaders = false
  static let knowsRanges = false
  private let lock: UnsafeMutablePointer<pthread_mutex_t>

  init() {
    lock = .allocate(capacity: 1)
    pthread_mutex_init(lock, nil)
  }

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    pthread_mutex_lock(lock)
    body()
    pthread_mutex_unlock(lock)
  }
}

/// A ticket lock: first come, first served, one word.
final class Ticket: BenchLock, @unchecked Sendable {
  static let name = "ticket lock"
  static let sharesReaders = false
  static let knowsRanges = false
  // Behind a pointer: it must not move.
  private let lock: UnsafeMutablePointer<TicketLock>

  init() {
    lock = .allocate(capacity: 1)
    lock.initialize(to: TicketLock())
  }

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    lock.pointee.lock()
    body()
    lock.pointee.unlock()
  }
}

/// Our reader/writer semaphore, what `mmap_lock` is.
final class Semaphore: BenchLock, @unchecked Sendable {
  static let name = "semaphore"
  static let sharesReaders = true
  static let knowsRanges = false
  // Behind a pointer: it must not move.
  private let lock: UnsafeMutablePointer<ReadWriteSemaphore>

  init() {
    lock = .allocate(capacity: 1)
    lock.initialize(to: ReadWriteSemaphore())
  }

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    lock.pointee.lock(mode)
    body()
    lock.pointee.unlock(mode)
  }
}

/// The interval tree under one spin lock: the range lock proposed for Linux.
final class IntervalTreeSubject: BenchLock {
  static let name = "interval tree"
  static let sharesReaders = true
  static let knowsRanges = true
  let lock = IntervalTreeLock()

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    let hold = lock.lock(over: range, mode)
    body()
    hold.release()
  }
}

/// The range lock as it is made by default: whole-lock mode while holds do not meet in time.
final class RangeLockSubject: BenchLock {
  static let name = "range lock"
  static let sharesReaders = true
  static let knowsRanges = true
  let lock = RangeLock()

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    let hold = lock.lock(over: range, mode)
    body()
    hold.release()
  }
}

/// The range lock with whole-lock mode switched off.
final class DirectorySubject: BenchLock {
  static let name = "range lock, directory"
  static let sharesReaders = true
  static let knowsRanges = true
  let lock = RangeLock(configuration: .init(usesWholeLockMode: false))

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    let hold = lock.lock(over: range, mode)
    body()
    hold.release()
  }
}

/// The range lock where requests may pass those that wait.
final class ThroughputSubject: BenchLock {
  static let name = "range lock, throughput"
  static let sharesReaders = true
  static let knowsRanges = true
  let lock = RangeLock(configuration: .init(fairness: .throughput))

  @inline(__always)
  func section(_ range: KeyRange, _ mode: LockMode, _ body: () -> Void) {
    let hold = lock.lock(over: range, mode)
    body()
    hold.release()
  }
}
