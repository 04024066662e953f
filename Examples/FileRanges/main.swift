// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Glibc
import RangeLocks
import SystemPackage

/// A file of balances, eight bytes for each account, and the lock for its bytes.
struct Ledger: Sendable {
  let file: FileDescriptor
  let lock = RangeLock(configuration: .init(granuleShift: 6))

  /// The bytes of an account.
  func bytes(of account: Int) -> KeyRange {
    let offset = UInt64(account) * 8
    return KeyRange(offset..<offset + 8)
  }
}

extension Ledger {
  // The callers of these hold the bytes that they touch.

  func balance(of account: Int) throws -> Int64 {
    var balance: Int64 = 0
    _ = try withUnsafeMutableBytes(of: &balance) {
      try file.read(fromAbsoluteOffset: Int64(account) * 8, into: $0)
    }
    return balance
  }

  func setBalance(_ balance: Int64, of account: Int) throws {
    _ = try withUnsafeBytes(of: balance) {
      try file.writeAll(toAbsoluteOffset: Int64(account) * 8, $0)
    }
  }

  func size() throws -> Int64 {
    try file.seek(offset: 0, from: .end)
  }

  func sum() throws -> Int64 {
    var sum: Int64 = 0
    for account in 0..<Int(try size() / 8) { sum += try balance(of: account) }
    return sum
  }
}

extension Ledger {
  /// The sum of all accounts, at one moment.
  func total() throws -> Int64 {
    try lock.withReadLock(over: .all) { try sum() }
  }

  /// Adds an account at the end of the file.
  func open(with balance: Int64) throws {
    while true {
      let end = try size()
      var tail = lock.lock(over: KeyRange(UInt64(end)...), .write)
      if try size() != end { continue }

      let account = Int(end / 8)
      tail.shrink(to: bytes(of: account))
      try setBalance(balance, of: account)
      tail.release()
      return
    }
  }

  /// Moves money from one account to another.
  func transfer(_ amount: Int64, from source: Int, to target: Int) throws {
    let both = lock.lock(overAll: [
      RangeRequest(bytes(of: source), .write), RangeRequest(bytes(of: target), .write),
    ])
    try setBalance(balance(of: source) - amount, of: source)
    try setBalance(balance(of: target) + amount, of: target)
    both.release()
  }
}

/// Four threads open 64 accounts, then move money about; the sum is looked at all the time.
func useThreads(_ ledger: Ledger) throws {
  DispatchQueue.concurrentPerform(iterations: 4) { _ in
    for _ in 0..<16 { try! ledger.open(with: 1_000) }
  }
  DispatchQueue.concurrentPerform(iterations: 4) { thread in
    for step in 0..<1_000 {
      try! ledger.transfer(1, from: (thread * 17 + step) % 64, to: step * 29 % 64)
      if step % 100 == 0 { precondition(try! ledger.total() == 64_000) }
    }
  }
  print("threads:", try ledger.total())
}

extension Ledger {
  /// The sum of all accounts, for tasks.
  func total() async throws -> Int64 {
    try await lock.withLock(over: .all, .read) { try sum() }
  }

  /// Moves money from one account to another, for tasks.
  func transfer(_ amount: Int64, from source: Int, to target: Int) async throws {
    let both = try await lock.lock(overAll: [
      RangeRequest(bytes(of: source), .write), RangeRequest(bytes(of: target), .write),
    ])
    try setBalance(balance(of: source) - amount, of: source)
    try setBalance(balance(of: target) + amount, of: target)
    both.release()
  }
}

/// A hundred tasks do the same.
func useTasks(_ ledger: Ledger) async throws {
  try await withThrowingTaskGroup(of: Void.self) { group in
    for task in 0..<100 {
      group.addTask {
        for step in 0..<40 {
          try await ledger.transfer(1, from: (task * 17 + step) % 64, to: step * 29 % 64)
        }
        let total = try await ledger.total()
        precondition(total == 64_000)
      }
    }
    try await group.waitForAll()
  }
  print("tasks:", try await ledger.total())
}

/// A task that is cancelled while it waits gives up, and stops nobody.
func giveUp(_ ledger: Ledger) async throws {
  let everything = try await ledger.lock.lock(over: .all, .write)
  let waiting = Task { try await ledger.transfer(1, from: 0, to: 1) }
  waiting.cancel()
  do {
    try await waiting.value
  } catch is CancellationError {
    print("cancelled")
  }
  everything.release()
}

let ledger = Ledger(file: FileDescriptor(rawValue: fileno(tmpfile())))
try useThreads(ledger)
try await useTasks(ledger)
try await giveUp(ledger)
