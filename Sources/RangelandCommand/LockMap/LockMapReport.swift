// SPDX-License-Identifier: Apache-2.0
//
// The lock map as JSON, as text, and as docs/lock-map.md.

import RangeLocks
import Rangeland

/// `lockmap --json`.
struct LockMapReport: Encodable {
  var schemaVersion = 1
  var rows = LockMap.rows.map(Row.init)

  struct Row: Encodable {
    var item: String
    var title: String
    var lock: String
    var mode: String
    var range: String
    var reason: String
    var operations: [String]

    init(_ row: LockMap.Row) {
      item = row.item.id
      title = row.item.title
      lock = row.lock.name
      mode = row.mode == .write ? "write" : "read"
      range = row.range
      reason = row.reason
      operations = row.operations.map(\.name)
    }
  }

  static func text() -> String {
    var text = ""
    for item in GuardedItem.allCases {
      text += "\(item.id)  \(item.title)\n"
      for row in LockMap.rows where row.item == item {
        text +=
          "    \(row.lock.name), \(row.mode == .write ? "write" : "read"), over \(row.range)\n"
          + "        by \(row.operations.map(\.name).joined(separator: ", "))\n"
          + "        \(row.reason)\n"
      }
    }
    return text
  }

  static func markdown() -> String {
    var text = """
      # The lock map: what does the lock of an address space protect?

      Generated: `rangeland lockmap --markdown > docs/lock-map.md`. The rows are declared in
      `Sources/Rangeland/Locking/Map`; checked test runs observe every guarded access, and CI fails when the two sets
      differ in either direction. The ids are those of the mission's acceptance table. Ranges are those of policy
      `.ranged`; under the other policies the lock covers more.


      """
    for item in GuardedItem.allCases {
      text += "## \(item.id): \(item.title)\n\n\(item.narrowing)\n\n"
      text += "| lock | mode | over | by | why |\n|---|---|---|---|---|\n"
      for row in LockMap.rows where row.item == item {
        text +=
          "| \(row.lock.name) | \(row.mode == .write ? "write" : "read") | \(row.range) | "
          + "\(row.operations.map(\.name).joined(separator: ", ")) | \(row.reason) |\n"
      }
      text += "\n"
    }
    return text
  }
}
