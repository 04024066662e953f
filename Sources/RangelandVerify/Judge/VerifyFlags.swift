// SPDX-License-Identifier: Apache-2.0
//
// The attributes of mappings, as `VmFlags` of /proc/pid/smaps names them.

import CKernelProtocol

/// Sets of flags, a bit each.
enum VerifyFlags {
  private static let letters: [UInt8] = Array(UInt8(ascii: "a")...UInt8(ascii: "z"))
  /// All names, for messages.
  private static let names: [String] = letters.flatMap { first in
    letters.map { String(decoding: [first, $0], as: UTF8.self) }
  }

  /// A set by its names.
  static func set(_ names: [String]) -> UInt64 {
    names.reduce(0) { set, name in set | name.withCString { kp_flag($0) } }
  }

  /// The names of a set; what has no name of its own is "??".
  static func description(_ set: UInt64) -> String {
    let other: UInt64 = 1 << 63
    let known = names.filter { name in
      let flag = name.withCString { kp_flag($0) }
      return flag & ~other & set != 0
    }
    return (known + (set & other != 0 ? ["??"] : [])).joined(separator: " ")
  }
}
