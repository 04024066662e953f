// SPDX-License-Identifier: Apache-2.0
//
// Locking a range for the time of a closure, and looking at a lock from outside.

extension RangeLock {
  /// Runs `body` while `range` is held for reading. Waits like `lock(over:_:)`.
  @available(*, noasync, message: "blocks the thread; use tryLock in asynchronous code")
  @inlinable
  public func withReadLock<Result: ~Copyable, Failure: Error>(
    over range: KeyRange, fileID: StaticString = #fileID, line: UInt = #line,
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let hold = lock(over: range, .read, fileID: fileID, line: line)
    let outcome: Result
    do throws(Failure) {
      outcome = try body()
    } catch {
      hold.release()
      throw error
    }
    hold.release()
    return outcome
  }

  /// Runs `body` while `range` is held for writing. Waits like `lock(over:_:)`.
  @available(*, noasync, message: "blocks the thread; use tryLock in asynchronous code")
  @inlinable
  public func withWriteLock<Result: ~Copyable, Failure: Error>(
    over range: KeyRange, fileID: StaticString = #fileID, line: UInt = #line,
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let hold = lock(over: range, .write, fileID: fileID, line: line)
    let outcome: Result
    do throws(Failure) {
      outcome = try body()
    } catch {
      hold.release()
      throw error
    }
    hold.release()
    return outcome
  }

  /// The number of holds. Other threads may change it at any time: for tests and diagnostics.
  ///
  /// - Complexity: latches every shard in use, one at a time, and walks all requests.
  public var holdCount: Int { directory.census().holders }

  /// The number of requests that wait. Other threads may change it at any time: for tests and diagnostics.
  ///
  /// - Complexity: latches every shard in use, one at a time, and walks all requests.
  public var waiterCount: Int { directory.census().waiters }
}
