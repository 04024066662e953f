// SPDX-License-Identifier: Apache-2.0
//
// The pool of the locks under test: other suites of the process use range locks at the same time, and a test that
// counts blocks must not see theirs.

@testable import RangeLocks

/// Blocks of all locks of these tests. The suite runs one test at a time, so counts are exact between tests.
let testPool = NodePool()

/// A lock on `testPool`.
func makeLock(_ configuration: RangeLock.Configuration = .init()) -> RangeLock {
  RangeLock(configuration: configuration, pool: testPool)
}
