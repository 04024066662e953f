// SPDX-License-Identifier: Apache-2.0
//
// `prctl` with `PR_SET_MM`, raw. Of the other options none is an address space's.
//
// Source: Linux kernel/sys.c `prctl_set_mm`, `prctl_set_mm_map`; include/uapi/linux/prctl.h.

import SystemPackage

extension AddressSpace {
  /// `PR_SET_MM`, `PR_SET_MM_*`, an address or a pointer, the size of what it points to, 0.
  ///
  /// The owner of a space may do what `CAP_SYS_RESOURCE` allows. `PR_SET_MM_EXE_FILE` and the auxiliary vector are
  /// a process's and not kept: `EINVAL`.
  func linuxSetMarkers(_ arguments: LinuxArguments) throws(Errno) {
    let (option, address, size) = (arguments.second, arguments.third, arguments.fourth)
    guard arguments.first == Self.setMM, arguments.fifth == 0 else { throw .invalidArgument }
    let (map, mapSize): (UInt64, UInt64) = (14, 15)
    switch option {
    case mapSize:
      do throws(AccessFault) {
        try store(UInt32(LinuxMarkers.byteCount), at: address)
      } catch {
        throw .badAddress
      }
    case map:
      guard size == UInt64(LinuxMarkers.byteCount) else { throw .invalidArgument }
      var raw = LinuxMarkers()
      do throws(AccessFault) {
        try withUnsafeMutableBytes(of: &raw) { (bytes) throws(AccessFault) in
          try read(at: address, into: bytes)
        }
      } catch {
        throw .badAddress
      }
      try raw.markers.check(dataLimit: limits.data)
      // No auxiliary vector, and no new program.
      guard raw.auxiliaryBytes == 0, raw.executable == .max else { throw .invalidArgument }
      try setMarkers(raw.markers)
    default:
      guard size == 0, address < Address.spaceEnd,
        address >= PlacementLimits.smallestHint,
        let marker = Int32(exactly: option).flatMap(ProgramMarker.init(rawValue:))
      else { throw .invalidArgument }
      try setMarker(marker, to: address)
    }
  }

  private static var setMM: UInt64 { 35 }
}

/// `struct prctl_mm_map`.
private struct LinuxMarkers {
  var startCode: UInt64 = 0
  var endCode: UInt64 = 0
  var startData: UInt64 = 0
  var endData: UInt64 = 0
  var startBreak: UInt64 = 0
  var programBreak: UInt64 = 0
  var startStack: UInt64 = 0
  var argumentStart: UInt64 = 0
  var argumentEnd: UInt64 = 0
  var environmentStart: UInt64 = 0
  var environmentEnd: UInt64 = 0
  var auxiliaryVector: UInt64 = 0
  var auxiliaryBytes: UInt32 = 0
  /// A file descriptor, -1 = none.
  var executable: UInt32 = 0

  static var byteCount: Int { MemoryLayout<LinuxMarkers>.size }

  var markers: ProgramMarkers {
    var markers = ProgramMarkers()
    (markers.startCode, markers.endCode) = (startCode, endCode)
    (markers.startData, markers.endData) = (startData, endData)
    (markers.heapStart, markers.programBreak) = (startBreak, programBreak)
    markers.startStack = startStack
    (markers.argumentStart, markers.argumentEnd) = (argumentStart, argumentEnd)
    (markers.environmentStart, markers.environmentEnd) = (environmentStart, environmentEnd)
    return markers
  }
}
