// SPDX-License-Identifier: Apache-2.0
//
// The declared rows of the lock map.

extension LockMap {
  /// Every row, by item.
  public static let rows: [Row] = []
}
